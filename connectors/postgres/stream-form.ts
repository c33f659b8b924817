import type pg from 'pg'
import type { Logger } from 'pino'
import { MillraceError, type TablePatterns, tableId } from '../../core/plugin.ts'
import type { PostgresConfig } from './postgres-config.ts'
import { postgresError, type ServerError } from './postgres-error.ts'
import { listTables } from './publication.ts'
import { type MappedTable, TEXT_FIX, type TextColumn, textColumns } from './type-mapping.ts'

/** What the walsender fails with when a type, or a part of it, has no send function. */
const UNDEFINED_FUNCTION = '42883'

/**
 * Slots whose stream turned out to hold what has no binary form: this process asks for them as text from then on. The catalog alone does not say it: the
 * column may be gone again, or be of a table that is published and not captured.
 */
const AS_TEXT = new Set<string>()

export interface StreamFormOptions {
  readonly setting: PostgresConfig['binary']
  /** Names the slot among those of all servers. */
  readonly slot: string
  readonly publication: string
  readonly patterns: TablePatterns
  readonly logger: Logger
}

/** Whether values of a stream are asked for in binary form or as text. pgoutput knows one of both for a whole stream. */
export class StreamForm {
  readonly binary: boolean
  readonly #setting: PostgresConfig['binary']
  readonly #slot: string

  private constructor(binary: boolean, { setting, slot }: StreamFormOptions) {
    this.binary = binary
    this.#setting = setting
    this.#slot = slot
  }

  /** With `auto`: text when a published table of ours has a column that needs it. */
  static async choose(client: pg.ClientBase, options: StreamFormOptions): Promise<StreamForm> {
    const { setting, slot, publication, patterns, logger } = options
    if (setting !== 'auto') return new StreamForm(setting, options)
    if (AS_TEXT.has(slot)) return new StreamForm(false, options)
    const tables = (await listTables(client, publication, patterns)).filter(({ published }) => published)
    const found = await textColumns(
      client,
      tables.map(({ oid }) => oid),
    )
    const columns = tables.flatMap((table) => (found.get(table.oid) ?? []).map((column) => `${tableId(table)}.${nameOf(column)}`))
    if (columns.length > 0) logger.info({ columns }, 'types without a binary form: the stream is asked for as text')
    return new StreamForm(columns.length === 0, options)
  }

  /** @throws source.unreachable when a table's rows cannot be read in this form and `auto` leaves the choice: the next stream of the slot comes as text */
  requireReadable({ table, columns }: MappedTable): void {
    if (!this.#mayChange) return
    const column = columns.find(({ binaryReadable }) => !binaryReadable)?.column
    if (column !== undefined) throw this.#change(`${tableId(table)}.${nameOf({ name: column.name, type: column.sourceType })} has no binary form that is known`)
  }

  /** What a walsender's error means that is not of the slot. */
  explain(error: Error & ServerError): MillraceError {
    if (error.code !== UNDEFINED_FUNCTION || !this.binary) return postgresError(error, 'while streaming')
    if (this.#mayChange) return this.#change(`Postgres cannot send a value in binary form: ${error.message}`, error)
    const message = `Postgres cannot send a value of a published table in binary form: ${error.message} (SQLSTATE ${error.code})`
    return new MillraceError('config.unsupported', message, { fix: TEXT_FIX, cause: error })
  }

  get #mayChange(): boolean {
    return this.#setting === 'auto' && this.binary
  }

  #change(why: string, cause?: unknown): MillraceError {
    AS_TEXT.add(this.#slot)
    return new MillraceError('source.unreachable', `${why}: the stream is asked for anew, as text`, {
      fix: 'nothing: it goes on by itself; `binary: false` on the source asks for text from the start',
      cause,
    })
  }
}

export function nameOf({ name, type }: TextColumn): string {
  return `${name} (${type})`
}
