import { type Quoting, type Word, wordsOf } from './statement-words.ts'

/** A table as a statement names it. */
export interface NamedTable {
  readonly namespace: string
  readonly name: string
}

export type Statement =
  | { readonly kind: 'truncate'; readonly tables: readonly NamedTable[] }
  /** Tables begin empty; those with the condition only where there was none before. */
  | { readonly kind: 'create'; readonly tables: readonly NamedTable[]; readonly isConditional: boolean }
  | { readonly kind: 'drop'; readonly tables: readonly NamedTable[] }
  | { readonly kind: 'drop database'; readonly namespace: string }
  /** Tables have other rows now, and the binlog does not say which: partitions went, another table has the name. Names that are `left` have no table. */
  | { readonly kind: 'replace'; readonly tables: readonly NamedTable[]; readonly left: readonly NamedTable[] }
  /** The tables' columns may be others; with `rewrites`, rows that exist may read differently. */
  | { readonly kind: 'alter'; readonly tables: readonly NamedTable[]; readonly rewrites: boolean }
  /** Of one of these kinds, with a table that cannot be read; `loses`: rows of any table may be gone, else they may read differently. */
  | { readonly kind: 'unreadable'; readonly opening: string; readonly loses: boolean }
  /** May have changed definitions, but for which column of a table is which. */
  | { readonly kind: 'definition' }
  /** Changes rows by itself, so it is no definition and its rows are not in the binlog. */
  | { readonly kind: 'change' }
  | { readonly kind: 'xa' }
  /** Concerns no table. */
  | { readonly kind: 'other' }

/** The session that ran a statement. */
export interface StatementSession extends Quoting {
  /** The database in use. */
  readonly namespace: string
  /** Names of tables are in lower case on the server, whatever a statement says (`lower_case_table_names` = 1). */
  readonly lowerCase: boolean
}

const OPENING_WORDS = 6
/** Characters of a name at most. */
const MOST_NAME = 64
const NAMING: ReadonlySet<Statement['kind']> = new Set(['truncate', 'create', 'drop', 'drop database', 'replace', 'alter'])
const DEFINITION: Statement = { kind: 'definition' }
const CHANGES = new Set(['insert', 'update', 'delete', 'replace', 'load', 'call', 'with', 'select', 'do'])
const OTHERS = new Set(['savepoint', 'release', 'rollback', 'grant', 'revoke', 'set', 'flush', 'optimize', 'begin', 'commit'])

/** What kind of statement it is. Never fails: what is not understood may have changed definitions. */
export function readStatement(text: string, session: StatementSession): Statement {
  const words = new Reader(wordsOf(text, session), session)
  const statement = read(words)
  if (!words.isMissing || !NAMING.has(statement.kind)) return statement
  return { kind: 'unreadable', opening: openingOf(text, session), loses: statement.kind !== 'alter' }
}

/** The first words of a statement, for messages: what follows may have a password (`CONNECTION`). */
function openingOf(text: string, session: StatementSession): string {
  const opening: string[] = []
  for (const { kind, raw } of wordsOf(text, session)) {
    if (opening.push(kind === 'text' ? "'…'" : raw.slice(0, MOST_NAME)) === OPENING_WORDS) break
  }
  return opening.join(' ')
}

const DIGITS = /^\d+$/
/** I8: so many names of a statement are known to be none of the database in use. */
const MOST_ASKED = 1000

/**
 * Whether a statement names a captured table, or may: any word of it may be a table of the database in use, any two with a dot between them a database and its
 * table. Reads no further than to the first, and holds few words: statements may have gigabytes.
 */
export function mayConcern(text: string, session: StatementSession, isCaptured: (namespace: string, name: string) => boolean): boolean {
  const asked = new Set<string>()
  let before: string | null = null
  let isDotted = false
  for (const { kind, raw } of wordsOf(text, session)) {
    if (kind === 'sign' && raw === '.') {
      isDotted = before !== null
      continue
    }
    const owner = isDotted ? before : null
    isDotted = false
    before = null
    // a name of digits alone is quoted, or has its database before it
    if (kind !== 'name' && (kind !== 'word' || (owner === null && DIGITS.test(raw)))) continue
    const name = session.lowerCase ? raw.toLowerCase() : raw
    before = name
    if (owner !== null && isCaptured(owner, name)) return true
    if (asked.has(name)) continue
    if (isCaptured(session.namespace, name)) return true
    if (asked.size >= MOST_ASKED) asked.clear()
    asked.add(name)
  }
  return false
}

function read(words: Reader): Statement {
  const verb = words.keyword()
  switch (verb) {
    case 'xa':
      return { kind: 'xa' }
    case 'truncate':
      words.take('table')
      return { kind: 'truncate', tables: words.table() }
    case 'delete':
      return readDelete(words)
    case 'create':
      return readCreate(words)
    case 'drop':
      return readDrop(words)
    case 'rename':
      return readRename(words)
    case 'alter':
      return readAlter(words)
    case 'analyze':
      if (words.take('table', 'tables', 'local', 'no_write_to_binlog')) return { kind: 'other' }
      // MariaDB's ANALYZE [FORMAT = JSON] runs what follows
      if (words.take('format')) {
        words.sign('=')
        words.keyword()
      }
      return read(words)
    case 'set':
      // MariaDB's SET STATEMENT a = 1, b = (…) FOR what is run with these
      if (!words.take('statement')) return { kind: 'other' }
      words.skipTo('for')
      return read(words)
  }
  if (CHANGES.has(verb)) return { kind: 'change' }
  return OTHERS.has(verb) ? { kind: 'other' } : DEFINITION
}

/** The server writes one without a condition for a MEMORY table that a restart emptied. */
function readDelete(words: Reader): Statement {
  const tables = words.take('from') ? words.table() : []
  words.sign(';')
  return tables.length > 0 && words.isAtEnd ? { kind: 'truncate', tables } : { kind: 'change' }
}

function readCreate(words: Reader): Statement {
  const replaces = words.take('or') && words.take('replace')
  if (words.take('temporary')) return { kind: 'other' }
  if (!words.take('table')) return DEFINITION
  const isConditional = words.condition()
  const tables = words.table()
  // in row format the event has the columns in place of the query, and the rows follow
  if (hasQuery(words)) return { kind: 'change' }
  return replaces ? { kind: 'truncate', tables } : { kind: 'create', tables, isConditional }
}

/** SELECT, VALUES (…), VALUES ROW (…) or TABLE t in the rest of a CREATE TABLE, where partitions have VALUES, too. */
function hasQuery(words: Reader): boolean {
  let before = ''
  for (const [{ kind, text }] of words.rest(true)) {
    const word = kind === 'word' && before !== '.' ? text : ''
    if (word === 'select' || word === 'table') return true
    if (before === 'values' && (word === 'row' || (kind === 'sign' && text === '('))) return true
    before = kind === 'sign' ? text : word
  }
  return false
}

function readDrop(words: Reader): Statement {
  if (words.take('database', 'schema')) {
    words.condition()
    return { kind: 'drop database', namespace: words.name() ?? '' }
  }
  if (words.take('temporary')) return { kind: 'other' }
  if (!words.take('table', 'tables')) return DEFINITION
  words.condition()
  const tables = [...words.table()]
  while (words.sign(',')) tables.push(...words.table())
  return { kind: 'drop', tables }
}

function readRename(words: Reader): Statement {
  if (!words.take('table', 'tables')) return DEFINITION
  words.condition()
  const froms: NamedTable[] = []
  const tables: NamedTable[] = []
  do {
    froms.push(...words.table())
    words.wait()
    words.take('to')
    tables.push(...words.table())
  } while (words.sign(','))
  // one after another: a name that is left may be taken again
  const left = froms.filter((from, i) => !tables.slice(i).some((to) => isSame(to, from)))
  return { kind: 'replace', tables, left }
}

function isSame(one: NamedTable | undefined, other: NamedTable): boolean {
  return one?.namespace === other.namespace && one.name === other.name
}

function readAlter(words: Reader): Statement {
  let isLossy = false
  // IGNORE of MariaDB drops rows that a new unique index has twice
  for (let word = words.take('online', 'offline', 'ignore'); word !== null; word = words.take('online', 'offline', 'ignore')) isLossy ||= word === 'ignore'
  if (!words.take('table')) return DEFINITION
  words.condition()
  const own = words.table()
  if (own.length === 0) return isLossy || mayLose(words) ? { kind: 'replace', tables: own, left: [] } : { kind: 'alter', tables: own, rewrites: true }
  words.wait()
  let changes: 'columns' | 'rows' | null = null
  let renamed = own
  const others: NamedTable[] = []
  const left: NamedTable[] = []
  do {
    if (words.isAtEnd) break
    const verb = words.keyword()
    // stands alone or at the end, and has commas of its own
    const isLast = words.isNext(LISTS)
    const what = readAction(verb, words)
    if (what === 'loses') isLossy = true
    else if (what === 'rename') renamed = words.renamed()
    else if (what === 'rows' || (what === 'columns' && changes === null)) changes = what
    let before = verb
    for (const [{ kind, text }, depth] of words.rest(isLast)) {
      if (before === 'engine' && kind === 'sign' && text === '=') continue
      const option = kind === 'word' && depth === 0 ? text : ''
      if (before === 'engine' && text.toLowerCase() === 'blackhole') isLossy = true
      else if (what === 'loses' && option === 'table') {
        // EXCHANGE PARTITION p WITH TABLE t, CONVERT PARTITION p TO TABLE t; CONVERT TABLE t TO PARTITION p
        if (before === 'with' || before === 'to') others.push(...words.table())
        else if (before === 'convert') left.push(...words.table())
      }
      before = option
    }
  } while (words.sign(','))
  // to the name that it has, it is none
  if (!isSame(renamed[0], own[0]!)) {
    others.push(...renamed)
    left.push(...own)
  }
  if (isLossy || left.length > 0) return { kind: 'replace', tables: [...(isLossy ? own : []), ...others], left }
  if (changes === null) return DEFINITION
  return { kind: 'alter', tables: own, rewrites: changes === 'rows' }
}

const LOSING = new Set(['partition', 'tablespace', 'rename', 'engine', 'exchange', 'convert', 'truncate'])

/** Whether what is left of an ALTER TABLE, whose actions are not told apart, may have an action that loses rows or gives them another name. */
function mayLose(words: Reader): boolean {
  for (const [{ kind, text }] of words.rest(true)) if (kind === 'word' && LOSING.has(text)) return true
  return false
}

const INDEXES = new Set(['index', 'key', 'unique', 'primary', 'fulltext', 'spatial', 'constraint', 'foreign', 'check'])
/** Begin what concerns no column's values: options of tables and of partitions. */
const HARMLESS = new Set(
  `alter order enable disable force engine type comment auto_increment row_format key_block_size algorithm lock default character charset collate checksum
   table_checksum stats_persistent stats_auto_recalc stats_sample_pages max_rows min_rows avg_row_length pack_keys delay_key_write tablespace union insert_method
   data connection compression encryption encrypted encryption_key_id page_compressed page_compression_level page_checksum transactional autoextend_size
   engine_attribute secondary_engine secondary_engine_attribute secondary_load secondary_unload with without reorganize coalesce analyze check optimize rebuild
   repair remove partition`.split(/\s+/),
)

/**
 * What one action of an ALTER TABLE, up to where it is read, may do: nothing to columns or rows, change `columns` in a way that leaves all values as they are, have
 * existing `rows` read differently, lose rows (`loses`), or `rename` the table. What is not known may do all but the last two.
 */
function readAction(verb: string, words: Reader): 'nothing' | 'columns' | 'rows' | 'loses' | 'rename' {
  switch (verb) {
    case 'add':
      if (words.isNext(INDEXES) || words.isNext(PARTITION)) return 'nothing'
      return readAdded(words)
    case 'drop':
      if (words.isNext(INDEXES)) return 'nothing'
      // a column of its name may come later, and old values must not come back with it
      return words.isNext(PARTITION) ? 'loses' : 'rows'
    case 'rename':
      if (words.isNext(INDEXES)) return 'nothing'
      return words.take('column') ? 'rows' : 'rename'
    case 'convert':
      return words.take('to') ? 'rows' : 'loses'
    case 'truncate':
    case 'exchange':
    case 'discard':
    case 'import':
      return 'loses'
    default:
      return HARMLESS.has(verb) ? 'nothing' : 'rows'
  }
}

const PARTITION = new Set(['partition'])
/** After an action's verb: lists may follow without parentheses. */
const LISTS = new Set([...PARTITION, 'by'])
/** In a column's definition: existing rows have a value in it that is not NULL. */
const FILLS = new Set(['as', 'generated', 'auto_increment', 'serial', 'primary'])
/** Before NULL: it is not what the column's definition allows. */
const NOT_BARE = new Set(['not', 'default', 'set'])

/** ADD COLUMN, of one or of several in parentheses. */
function readAdded(words: Reader): 'columns' | 'rows' {
  words.take('column')
  words.condition()
  const isList = words.sign('(')
  const definitions: string[][] = [[]]
  for (const [{ kind, text }, depth] of words.rest(false, isList ? 1 : 0)) {
    if (isList && depth === 1 && kind === 'sign' && text === ',') definitions.push([])
    else definitions.at(-1)!.push(kind === 'word' && depth === (isList ? 1 : 0) ? text : '')
  }
  return definitions.some(fills) ? 'rows' : 'columns'
}

/** @param definition of a column, or of an index in a list of columns: its keywords, empty for what is none and for what is in parentheses */
function fills(definition: readonly string[]): boolean {
  const [name = '', second] = definition
  if ((name === 'period' && (second === 'for' || second === 'if')) || (name === 'system' && second === 'versioning')) return true
  // a column may have a keyword's name; what begins an index may not
  const words = INDEXES.has(name) ? definition : ['', ...definition.slice(1)]
  return words.some((word, i) => {
    const before = words[i - 1] ?? ''
    if (before === 'after') return false
    // without explicit_defaults_for_timestamp it is NOT NULL unless it says NULL
    if (word === 'timestamp') return !words.some((other, j) => other === 'null' && !NOT_BARE.has(words[j - 1]!))
    // alone, it is PRIMARY KEY
    if (word === 'key') return i > 0 && !INDEXES.has(before)
    return FILLS.has(word) || (before === 'default' && word !== 'null') || (before === 'not' && word === 'null')
  })
}

/** Takes the words of a statement one by one. */
class Reader {
  readonly #words: Iterator<Word, undefined>
  readonly #session: StatementSession
  #next: Word | null
  /** A name was not there where one should be. */
  isMissing = false

  constructor(words: Iterator<Word, undefined>, session: StatementSession) {
    this.#words = words
    this.#session = session
    this.#next = words.next().value ?? null
  }

  get isAtEnd(): boolean {
    return this.#next === null
  }

  #advance(): Word | null {
    const word = this.#next
    this.#next = this.#words.next().value ?? null
    return word
  }

  /** The next word, whatever it is; empty when it is no keyword. */
  keyword(): string {
    const word = this.#advance()
    return word?.kind === 'word' ? word.text : ''
  }

  isNext(keywords: ReadonlySet<string>): boolean {
    return this.#next?.kind === 'word' && keywords.has(this.#next.text)
  }

  /** The next word, when it is one of the keywords. */
  take(...keywords: readonly string[]): string | null {
    return this.#next?.kind === 'word' && keywords.includes(this.#next.text) ? this.#advance()!.text : null
  }

  sign(text: string): boolean {
    const is = this.#next?.kind === 'sign' && this.#next.text === text
    if (is) this.#advance()
    return is
  }

  /** IF EXISTS, IF NOT EXISTS */
  condition(): boolean {
    if (!this.take('if')) return false
    this.take('not')
    this.take('exists')
    return true
  }

  /** WAIT n, NOWAIT */
  wait(): void {
    if (this.take('wait')) this.#advance()
    else this.take('nowait')
  }

  /** Skips what comes up to a keyword that is in no parentheses, and the keyword. */
  skipTo(keyword: string): void {
    for (let depth = 0; this.#next !== null; ) {
      const { kind, text } = this.#advance()!
      if (kind === 'sign') depth += text === '(' ? 1 : text === ')' ? -1 : 0
      else if (depth === 0 && kind === 'word' && text === keyword) return
    }
  }

  /** Words up to the statement's end, or to the comma that ends the action unless it `isLast`; each with how many parentheses are open, `depth` of them before. */
  *rest(isLast: boolean, depth = 0): Generator<readonly [word: Word, depth: number]> {
    for (let open = depth; this.#next !== null; ) {
      if (open === 0 && !isLast && this.#next.kind === 'sign' && this.#next.text === ',') return
      const word = this.#advance()!
      if (word.kind === 'sign') open += word.text === '(' ? 1 : word.text === ')' ? -1 : 0
      yield [word, open]
    }
  }

  /** RENAME [TO | AS | =] t */
  renamed(): readonly NamedTable[] {
    if (!this.take('to', 'as')) this.sign('=')
    return this.table()
  }

  name(): string | null {
    const isName = this.#next?.kind === 'word' || this.#next?.kind === 'name'
    if (!isName) {
      this.isMissing = true
      return null
    }
    const { raw } = this.#advance()!
    return this.#session.lowerCase ? raw.toLowerCase() : raw
  }

  /** A table with or without its database; empty when there is none. */
  table(): readonly NamedTable[] {
    const { namespace } = this.#session
    // .t is t of the database in use
    this.sign('.')
    const first = this.name()
    if (first === null) return []
    if (!this.sign('.')) return [{ namespace, name: first }]
    const name = this.name()
    return name === null ? [] : [{ namespace: first, name }]
  }
}
