/**
 * The one error class and the one table of codes.
 *
 * The category alone decides what the runtime does with an error, and `isOfOneTable` how much of a source it stops; nothing else looks at codes or messages to decide.
 */

/** What the runtime does: see the table in ARCHITECTURE.md, "Errors". */
export type ErrorCategory = 'config' | 'unavailable' | 'history' | 'schema' | 'data' | 'conflict' | 'bug'

/** Exit code of a command that ends with an error of this category. */
export const EXIT_CODE: Readonly<Record<ErrorCategory, 1 | 2 | 3>> = {
  config: 2,
  unavailable: 3,
  history: 1,
  schema: 2,
  data: 1,
  conflict: 1,
  bug: 1,
}

/** Every code, its category and what it means. Codes are public and stable: add, never rename. */
export const ERROR_CODES = {
  'config.invalid': ['config', 'A mesh file or a setting is wrong.'],
  'config.unknown_plugin': ['config', 'No plugin of that name was found.'],
  'config.secret_missing': ['config', 'A secret reference ($-braces env: or file:) has no value.'],
  'config.unsupported': ['config', 'A combination of settings that is not supported.'],
  'source.forbidden': ['config', 'The source refuses: wrong credentials or a missing privilege.'],
  'source.unprepared': ['config', 'The source lacks something that capture needs (wal_level, publication, replica identity…).'],
  'source.unreachable': ['unavailable', 'The source cannot be reached now.'],
  'source.history_lost': ['history', 'The source no longer has the changes that follow our progress.'],
  'source.identity_changed': ['history', 'The source is another server, or another timeline, than the one captured before.'],
  'source.protocol': ['data', 'Bytes from the source do not follow its protocol.'],
  'source.in_use': ['conflict', 'Another process captures this source.'],
  'source.occupied': ['unavailable', 'A silent connection holds the source, perhaps of a process that is gone.'],
  'source.locked': ['unavailable', 'Somebody holds a table locked against reading: its rows are read once the lock is free.'],
  'source.schema_unsupported': ['schema', 'A table or a type of the source cannot be captured as configured.'],
  'source.table_gone': ['schema', 'A captured table was dropped, renamed or is no longer published: its stream and its targets keep the rows they have.'],
  'source.no_identity': ['schema', 'A table has neither a key nor a replica identity, so that its updates and deletes could not be captured.'],
  'source.key_changed': ['schema', 'The key of a captured table is of other columns than that of its rows in the log.'],
  'log.unreachable': ['unavailable', 'The log cannot be reached now.'],
  'log.full': ['unavailable', 'The log, or the data folder, has no room (disk full).'],
  'log.fenced': ['conflict', 'A newer writer took over this node.'],
  'log.locked': ['conflict', 'Another process holds this data folder.'],
  'log.corrupt': ['data', 'Stored bytes fail their checksum.'],
  'log.refused': ['config', 'The log refuses an operation: rights, topic settings or record size.'],
  'log.position_lost': ['history', 'The log no longer has the position that a reader asks for.'],
  'registry.unreachable': ['unavailable', 'The schema registry cannot be reached now.'],
  'registry.refused': ['config', 'The schema registry refuses an operation.'],
  'schema.incompatible': ['schema', 'A schema breaks the compatibility level of its subject.'],
  'schema.invalid': ['schema', 'A schema is not valid Avro, or not one that Millrace can read.'],
  'schema.unknown': ['schema', 'A schema id or subject is not in the registry.'],
  'schema.readonly': ['config', 'The registry or the subject is in READONLY mode.'],
  'record.rejected': ['data', 'A record cannot be written to the sink.'],
  'record.unrepresentable': ['data', 'A value does not fit the Avro type of its column.'],
  'record.null_key': ['data', 'A key column is NULL.'],
  'record.too_large': ['data', 'A record is larger than the log accepts.'],
  'record.malformed': ['data', 'Bytes in the log are not a record of their schema.'],
  'sink.unreachable': ['unavailable', 'The sink cannot be reached now.'],
  'sink.forbidden': ['config', 'The sink refuses: wrong credentials or a missing privilege.'],
  'sink.conflict': ['conflict', 'Another writer changed the sink at the same time.'],
  'sink.schema_unsupported': ['schema', 'The sink cannot hold this table or this change of it.'],
  'audit.unequal': ['data', 'Source and target differ.'],
  'audit.unfinished': ['unavailable', 'A table could not be compared, since something lags or takes changes all the while: nothing is known to differ.'],
  'node.unknown': ['config', 'The mesh has no such node.'],
  'invariant.broken': ['bug', 'Millrace broke one of its own rules.'],
} as const satisfies Record<string, readonly [ErrorCategory, string]>

export type ErrorCode = keyof typeof ERROR_CODES

/** A place in a text file; line and column count from 1. */
export interface SourceLocation {
  readonly file: string
  readonly line: number
  readonly column: number
}

export interface ErrorFacts {
  /** What repairs it: a command or a setting, in the user's words. */
  readonly fix?: string
  readonly where?: SourceLocation
  readonly cause?: unknown
  /** The topic whose record the log refuses. */
  readonly topic?: string
  /** Wait at least this long before a retry, in milliseconds. */
  readonly retryAfterMs?: number
}

/** The only error that crosses a stage or a plugin boundary. Never put a secret or a row's value in its message. */
export class MillraceError extends Error {
  override readonly name = 'MillraceError'
  readonly code: ErrorCode
  readonly category: ErrorCategory
  readonly fix: string | undefined
  readonly where: SourceLocation | undefined
  readonly topic: string | undefined
  readonly retryAfterMs: number | undefined

  constructor(code: ErrorCode, message: string, facts: ErrorFacts = {}) {
    super(message, facts.cause === undefined ? undefined : { cause: facts.cause })
    this.code = code
    this.category = ERROR_CODES[code][0]
    this.fix = facts.fix
    this.where = facts.where
    this.topic = facts.topic
    this.retryAfterMs = facts.retryAfterMs
  }

  /** The error as it is printed: `file:line:column code message (fix)`. */
  override toString(): string {
    const place = this.where === undefined ? '' : `${this.where.file}:${this.where.line}:${this.where.column} `
    return `${place}${this.code}: ${this.message}${this.fix === undefined ? '' : `\n  fix: ${this.fix}`}`
  }
}

/** `error` itself when it is ours; else a `bug` that carries it as its cause. */
export function asMillraceError(error: unknown): MillraceError {
  if (error instanceof MillraceError) return error
  const message = error instanceof Error ? error.message : String(error)
  return new MillraceError('invariant.broken', message, { cause: error })
}

/** An error of one table, whose neighbours can go on: of its schema, or of a record of it. */
export function isOfOneTable({ category, code }: MillraceError): boolean {
  return category === 'schema' || code.startsWith('record.')
}

/** Throws `invariant.broken` unless `condition` holds. */
export function invariant(condition: unknown, message: string): asserts condition {
  if (!condition) throw new MillraceError('invariant.broken', message)
}
