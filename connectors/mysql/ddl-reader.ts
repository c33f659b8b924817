/** A table as a statement names it. */
export interface NamedTable {
  readonly namespace: string
  readonly name: string
}

export type Statement =
  /** Without tables: which one it is cannot be read. */
  | { readonly kind: 'truncate'; readonly tables: readonly NamedTable[] }
  /** May have changed definitions of tables. */
  | { readonly kind: 'definition' }
  /** Changes rows by itself, so it is no definition and its rows are not in the binlog. */
  | { readonly kind: 'change' }
  | { readonly kind: 'xa' }
  /** Concerns no table. */
  | { readonly kind: 'other' }

const CHANGES = new Set(['insert', 'update', 'delete', 'replace', 'load', 'call', 'with'])
const OTHERS = new Set(['savepoint', 'release', 'rollback', 'grant', 'revoke', 'set', 'flush', 'analyze', 'optimize', 'begin', 'commit'])

/** What kind of statement it is. Never fails: what is not understood may have changed definitions. `namespace` is the database in use. */
export function readStatement(text: string, namespace: string): Statement {
  const words = withoutComments(text)
  const verb = /^[a-z]+/i.exec(words)?.[0].toLowerCase() ?? ''
  if (verb === 'xa') return { kind: 'xa' }
  if (verb === 'truncate') {
    const tables = names(words.replace(/^truncate\s+(?:table\s+)?/i, ''), namespace)
    return { kind: 'truncate', tables }
  }
  if (CHANGES.has(verb)) return { kind: 'change' }
  return { kind: OTHERS.has(verb) ? 'other' : 'definition' }
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

/** One table name at the start of the text. */
function names(text: string, namespace: string): readonly NamedTable[] {
  const match = new RegExp(`^${NAME}(?:\\s*\\.\\s*${NAME})?`, 'u').exec(text)
  if (match === null) return []
  const first = unquote(match, 1)
  const second = unquote(match, 4)
  return [second === '' ? { namespace, name: first } : { namespace: first, name: second }]
}

function unquote(match: RegExpExecArray, at: number): string {
  return match[at]?.replaceAll('``', '`') ?? match[at + 1]?.replaceAll('""', '"') ?? match[at + 2] ?? ''
}
