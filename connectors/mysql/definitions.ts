import { MillraceError, tableId } from '../../core/plugin.ts'
import type { ChangeApplier } from './change-applier.ts'
import type { NamedTable, Statement } from './ddl-reader.ts'
import type { DescribedAhead } from './described-ahead.ts'

export interface DefinitionsOptions {
  readonly isCaptured: (namespace: string, name: string) => boolean
  /** Definitions of tables may be others from here on. */
  readonly onChanged: (namespace: string) => void
  readonly ahead: DescribedAhead
  /** Rows of the table from before this statement were read by its names after it; the table is read anew. */
  readonly onMisread: (table: NamedTable, place: string) => void
  /** The captured tables as they are now. */
  readonly listed: () => Promise<readonly NamedTable[]>
  /** The tables of a statement that begins so cannot be read: all captured ones are read anew. */
  readonly onUnreadable: (opening: string, place: string) => void
}

/** Where a statement is in the binlog. */
export interface StatementPlace {
  readonly place: string
  /** Its end, see `fileMark`. */
  readonly mark: bigint
  /** It was captured before a restart, and what it did to rows is in the log. */
  readonly isCaptured: boolean
}

/** What statements of the stream do to definitions, and to rows that are not in the binlog. */
export class Definitions {
  readonly #applier: ChangeApplier
  readonly #options: DefinitionsOptions
  readonly #dropped = new DroppedTables()

  constructor(applier: ChangeApplier, options: DefinitionsOptions) {
    this.#applier = applier
    this.#options = options
  }

  async apply(statement: Statement, namespace: string, { place, mark, isCaptured }: StatementPlace): Promise<void> {
    const { kind } = statement
    if (kind === 'other' || kind === 'change' || kind === 'xa') return
    this.#options.onChanged(namespace)
    if (kind !== 'truncate') this.#applier.forget()
    if (kind === 'definition') return
    if (kind === 'drop database') return this.#dropped.addAll(statement.namespace)
    if (kind === 'unreadable') return isCaptured ? undefined : await this.#applyToAll(statement, place, mark)
    for (const { namespace, name } of statement.tables) {
      if (!this.#options.isCaptured(namespace, name)) continue
      if (kind === 'drop') {
        this.#drop(namespace, name)
        continue
      }
      if (kind === 'alter') {
        if (!isCaptured) this.#alter({ namespace, name }, statement.rewrites, place, mark)
        continue
      }
      const wasDropped = this.#dropped.isMade(namespace, name)
      if (isCaptured) continue
      if (kind === 'truncate') await this.#applier.truncate(namespace, name)
      else if (kind === 'replace') this.#applier.setAside({ namespace, name }, replaced(`${namespace}.${name}`, place))
      else if (wasDropped || !statement.isConditional) await this.#applier.recreate(namespace, name)
    }
    if (kind === 'replace') for (const { namespace, name } of statement.left) this.#drop(namespace, name)
  }

  /** It may have been about any table. */
  async #applyToAll({ opening, loses }: Statement & { readonly kind: 'unreadable' }, place: string, mark: bigint): Promise<void> {
    const tables = await this.#options.listed()
    this.#options.onUnreadable(opening, place)
    for (const table of tables) {
      if (loses) this.#applier.setAside(table, unreadable(tableId(table), opening, place))
      else this.#alter(table, true, place, mark)
    }
    if (loses) this.#dropped.addOthers(tables)
  }

  #alter(table: NamedTable, rewrites: boolean, place: string, mark: bigint): void {
    const { ahead, onMisread } = this.#options
    // table maps without names tell of no ALTER TABLE that keeps the layout: rows before it may have been taken for those after it
    if (!ahead.has(tableId(table), mark)) {
      if (rewrites) this.#applier.reread(table)
      return
    }
    onMisread(table, place)
    this.#applier.setAside(table, misread(tableId(table), place))
  }

  #drop(namespace: string, name: string): void {
    if (this.#options.isCaptured(namespace, name)) this.#dropped.add(namespace, name)
  }
}

/** Captured tables that are gone: a CREATE TABLE IF NOT EXISTS of one makes it, of any other it does nothing. */
class DroppedTables {
  readonly #tables = new Set<string>()
  /** Databases that were dropped, and their tables that were made since. */
  readonly #databases = new Map<string, Set<string>>()

  /** Since a statement that may have dropped any table, those that were there, or were made; null: there was none. */
  #kept: Set<string> | null = null

  add(namespace: string, name: string): void {
    this.#tables.add(`${namespace}.${name}`)
  }

  /** Any table but these may be gone. */
  addOthers(tables: readonly NamedTable[]): void {
    this.#kept = new Set(tables.map(tableId))
  }

  addAll(namespace: string): void {
    this.#databases.set(namespace, new Set())
  }

  /** There is a table of this name now. @returns whether there was none */
  isMade(namespace: string, name: string): boolean {
    const made = this.#databases.get(namespace)
    const id = `${namespace}.${name}`
    const wasDropped = this.#tables.delete(id) || made?.has(name) === false || this.#kept?.has(id) === false
    made?.add(name)
    this.#kept?.add(id)
    return wasDropped
  }
}

function replaced(table: string, place: string): MillraceError {
  return new MillraceError(
    'source.table_gone',
    `the rows of ${table} were replaced at ${place} by a statement that does not say by which: partitions went, or another table took the name`,
    {
      fix: 'have it read anew',
    },
  )
}

function unreadable(table: string, opening: string, place: string): MillraceError {
  return new MillraceError(
    'source.table_gone',
    `the rows of ${table} may be gone: a statement at ${place} (${opening} …) does not say readably of which table`,
    {
      fix: 'have it read anew, and report the statement',
    },
  )
}

/** With the code of a table that is gone, which core reads anew by itself as it is there. */
function misread(table: string, place: string): MillraceError {
  return new MillraceError(
    'source.table_gone',
    `rows of ${table} from before the ALTER TABLE at ${place} do not say their columns' names, and were read by those after it: it is read anew`,
    { fix: `SET GLOBAL binlog_row_metadata = 'FULL', and in the server configuration, so that rows say so from now on` },
  )
}
