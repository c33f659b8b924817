import type { Logger } from 'pino'
import { MillraceError } from '../errors.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'

/** The tables of a snapshot that were found locked. */
export class LockedTables {
  readonly #logger: Pick<Logger, 'warn'> | null
  readonly #told = new Set<string>()

  /** @param logger told of each table once, until a chunk of it is read */
  constructor(logger: Pick<Logger, 'warn'> | null) {
    this.#logger = logger
  }

  /** What `SnapshotReader.prepare` and `read` throw of a table whose lock was waited for in vain. */
  found(table: TableSchema, cause: unknown): MillraceError {
    const id = tableId(table)
    const error = new MillraceError('source.locked', `${id} is locked by another session, or waits to be`, {
      fix: 'end that session; the table is read once the lock is free',
      cause,
    })
    if (!this.#told.has(id)) this.#logger?.warn({ table: id, fix: error.fix }, error.message)
    this.#told.add(id)
    return error
  }

  /** A chunk of the table was read. */
  read(table: TableSchema): void {
    this.#told.delete(tableId(table))
  }
}
