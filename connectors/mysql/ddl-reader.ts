/** A table as a statement names it. */
export interface NamedTable {
  readonly namespace: string
  readonly name: string
}

export type Statement =
  /** Without tables: which one it is cannot be read. */
  | { readonly kind: 'truncate'; readonly tables: readonly NamedTable[] }
  /** Tables begin empty; those with the condition only where there was none before. */
  | { readonly kind: 'create'; readonly tables: readonly NamedTable[]; readonly isConditional: boolean }
  | { readonly kind: 'drop'; readonly tables: readonly NamedTable[] }
  | { readonly kind: 'drop database'; readonly namespace: string }
  /** Tables have other rows now, and the binlog does not say which: partitions went, another table has the name. Names that are `left` have no table. */
  | { readonly kind: 'replace'; readonly tables: readonly NamedTable[]; readonly left: readonly NamedTable[] }
  /** The tables' columns may be others. */
  | { readonly kind: 'alter'; readonly tables: readonly NamedTable[] }
  /** May have changed definitions, but for which column of a table is which. */
  | { readonly kind: 'definition' }
  /** Changes rows by itself, so it is no definition and its rows are not in the binlog. */
  | { readonly kind: 'change' }
  | { readonly kind: 'xa' }
  /** Concerns no table. */
  | { readonly kind: 'other' }

const CHANGES = new Set(['insert', 'update', 'delete', 'replace', 'load', 'call', 'with'])
const OTHERS = new Set(['savepoint', 'release', 'rollback', 'grant', 'revoke', 'set', 'flush', 'analyze', 'optimize', 'begin', 'commit'])

/** Any word that columns are altered with, but for what is surely no column. */
const ALTERS_COLUMNS = /\b(?:add|drop|change|modify|rename|convert)\b/i
const KEEPS_COLUMNS = /\badd\s+(?:(?:fulltext\s+|spatial\s+)?(?:index|key)|partition)\b/gi

/** What kind of statement it is. Never fails: what is not understood may have changed definitions. `namespace` is the database in use. */
export function readStatement(text: string, namespace: string): Statement {
  const words = withoutComments(text)
  const verb = /^[a-z]+/i.exec(words)?.[0].toLowerCase() ?? ''
  if (verb === 'xa') return { kind: 'xa' }
  if (verb === 'truncate') {
    const tables = names(words.replace(/^truncate\s+(?:table\s+)?/i, ''), namespace)
    return { kind: 'truncate', tables }
  }
  if (verb === 'delete') {
    // the server writes this for a MEMORY table that a restart emptied
    const all = new RegExp(`^delete\\s+from\\s+(${TABLE})\\s*;?$`, 'iu').exec(words)
    if (all !== null) return { kind: 'truncate', tables: names(all[1]!, namespace) }
  }
  if (CHANGES.has(verb)) return { kind: 'change' }
  return readDefinition(verb, words, namespace) ?? { kind: OTHERS.has(verb) ? 'other' : 'definition' }
}

function readDefinition(verb: string, words: string, namespace: string): Statement | null {
  const after = (head: string) => {
    const match = new RegExp(`^${head}`, 'i').exec(words)
    return match === null ? null : { groups: match, rest: words.slice(match[0].length) }
  }
  if (verb === 'create') {
    const create = after('create\\s+(or\\s+replace\\s+)?(temporary\\s+)?table\\s+(if\\s+not\\s+exists\\s+)?')
    if (create === null) return null
    const [, replaces, temporary, conditional] = create.groups
    if (temporary !== undefined) return { kind: 'other' }
    const tables = names(create.rest, namespace)
    return replaces === undefined ? { kind: 'create', tables, isConditional: conditional !== undefined } : { kind: 'truncate', tables }
  }
  if (verb === 'drop') {
    const database = after('drop\\s+(?:database|schema)\\s+(?:if\\s+exists\\s+)?')
    if (database !== null) return { kind: 'drop database', namespace: names(database.rest, namespace)[0]?.name ?? '' }
    const drop = after('drop\\s+(temporary\\s+)?tables?\\s+(?:if\\s+exists\\s+)?')
    if (drop === null) return null
    return drop.groups[1] === undefined ? { kind: 'drop', tables: allNames(drop.rest, `(${TABLE})`, namespace) } : { kind: 'other' }
  }
  if (verb === 'rename') {
    const rename = after('rename\\s+tables?\\s+(?:if\\s+exists\\s+)?')
    if (rename === null) return null
    const froms = allNames(rename.rest, `(?:^|,)\\s*(${TABLE})(?=\\s+(?:wait\\s+\\d+\\s+|nowait\\s+)?to\\s)`, namespace)
    const tables = allNames(rename.rest, `\\sto\\s+(${TABLE})`, namespace)
    // one after another: a name that is left may be taken again
    const left = froms.filter((from, i) => !tables.slice(i).some((to) => to.namespace === from.namespace && to.name === from.name))
    return { kind: 'replace', tables, left }
  }
  if (verb === 'alter') {
    const alter = after('alter\\s+(?:online\\s+|ignore\\s+)*table\\s+(?:if\\s+exists\\s+)?')
    if (alter === null) return null
    const rest = alter.rest.replaceAll(/'(?:[^'\\]|\\.)*'/g, ' ')
    const renamed = allNames(rest, `\\srename\\s+(?:to\\s+|as\\s+|=\\s*)?(?!(?:column|index|key)\\s)(${TABLE})`, namespace)
    const swapped = allNames(rest, `\\swith\\s+table\\s+(${TABLE})`, namespace)
    const loses = /\s(?:(?:drop|truncate|exchange|discard|import)\s+(?:partition|tablespace)|convert\s+(?:partition|table))\b/i.test(rest)
    const own = names(rest, namespace)
    if (loses || renamed.length > 0) return { kind: 'replace', tables: [...(loses ? own : []), ...swapped, ...renamed], left: renamed.length > 0 ? own : [] }
    if (ALTERS_COLUMNS.test(rest.replaceAll(KEEPS_COLUMNS, ' '))) return { kind: 'alter', tables: own }
  }
  return null
}

/** Which statement it is, and of which tables, stands at its start. */
const MOST_CHARACTERS = 64 * 1024

/** What comments hold that servers run stays. */
function withoutComments(text: string): string {
  const parts = /('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`)|\/\*M?!\d*|\/\*[\s\S]*?\*\/|\*\/|--(?=\s)[^\n]*|#[^\n]*/g
  return text
    .slice(0, MOST_CHARACTERS)
    .replaceAll(parts, (_, quoted: string | undefined) => quoted ?? ' ')
    .trim()
}

const NAME = '(?:`((?:[^`]|``)+)`|"((?:[^"]|"")+)"|([\\p{L}\\p{N}_$]+))'

const PLAIN_NAME = '(?:`(?:[^`]|``)+`|"(?:[^"]|"")+"|[\\p{L}\\p{N}_$]+)'
/** A table with or without its database, in no group. */
const TABLE = `${PLAIN_NAME}(?:\\s*\\.\\s*${PLAIN_NAME})?`

/** One table name at the start of the text. */
function names(text: string, namespace: string): readonly NamedTable[] {
  const match = new RegExp(`^${NAME}(?:\\s*\\.\\s*${NAME})?`, 'u').exec(text)
  if (match === null) return []
  const first = unquote(match, 1)
  const second = unquote(match, 4)
  return [second === '' ? { namespace, name: first } : { namespace: first, name: second }]
}

/** The tables wherever the pattern's one group finds them. */
function allNames(text: string, pattern: string, namespace: string): readonly NamedTable[] {
  return [...text.matchAll(new RegExp(pattern, 'giu'))].flatMap((match) => names(match[1]!, namespace))
}

function unquote(match: RegExpExecArray, at: number): string {
  return match[at]?.replaceAll('``', '`') ?? match[at + 1]?.replaceAll('""', '"') ?? match[at + 2] ?? ''
}
