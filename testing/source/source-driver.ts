import type { ErrorCode } from '../../core/errors.ts'
import type { Value } from '../../core/event/table-schema.ts'
import type { SourcePlugin } from '../../core/plugin.ts'

/**
 * A row of the tables that the suite works with: `id` (a whole number, the key), `name` (text), `quantity` (32-bit number), `body` (text that may be
 * large), and `extra` (a number) once `addColumn` was called. All but the key are nullable.
 */
export interface Item {
  readonly id: number
  readonly name: string | null
  readonly quantity: number | null
  readonly body: string | null
  readonly extra?: number | null
}

/** One statement. An update sets the columns that `set` names and no others; one that sets `id` changes the key. */
export type Write =
  | { readonly op: 'insert'; readonly table: string; readonly row: Item }
  | { readonly op: 'update'; readonly table: string; readonly id: number; readonly set: Partial<Item> }
  | { readonly op: 'delete'; readonly table: string; readonly id: number }
  | { readonly op: 'truncate'; readonly table: string }

/**
 * A database (a folder, a server) of its own for one test, with what the suite needs to change it: by plain clients, not through the connector. What is
 * optional leaves the tests out that need it.
 */
export interface ProvisionedSource {
  // biome-ignore lint/suspicious/noExplicitAny: each plugin has settings of its own
  readonly plugin: SourcePlugin<any>
  /** As in YAML; all tables that are made here are captured. */
  readonly settings: Readonly<Record<string, unknown>>
  /** Namespace of the tables in their description. */
  readonly namespace: string
  /** Makes an empty table of {@link Item}s. */
  createTable(table: string): Promise<void>
  /** Runs the writes in their order, in one transaction where the source has such. */
  transact(writes: readonly Write[]): Promise<void>
  /** Adds the nullable column `extra` without a default. */
  addColumn?(table: string): Promise<void>
  /** Locks the table against readers, as maintenance might, until it is disposed of. With the capability `locksReaders`. */
  lockTable?(table: string): Promise<AsyncDisposable>
  /** Restarts the server; resolves when it answers again. */
  restart?(): Promise<void>
  /** Takes away what follows the stored offset, as an operator might: drops the slot, purges the log. Called while nothing captures. */
  loseHistory?(): Promise<void>
  /** Names of what the connector keeps on the server now: slots, publications. */
  leftovers?(): Promise<readonly string[]>
  /** Settings with which opening must fail, and how. */
  readonly wrong?: readonly { readonly what: string; readonly settings: Readonly<Record<string, unknown>>; readonly code: ErrorCode }[]
  /** A table with a column of each type of the source. */
  readonly types?: TypedTable
  dispose(): Promise<void>
}

export interface TypedTable {
  /** Makes the table under this name, empty. */
  create(table: string): Promise<void>
  /** Inserts its rows. */
  load(table: string): Promise<void>
  /** What must come of them: values in the order of the columns; the first column is the key. */
  readonly rows: readonly (readonly Value[])[]
}

/** What a source can do; tests of what it cannot are left out. */
export interface SourceCapabilities {
  /** Rows are only ever added. */
  readonly appendOnly?: boolean
  readonly changesKeys?: boolean
  readonly truncates?: boolean
  /** Several writes land together, and an offset never lies between them. */
  readonly transactions?: boolean
  /** An update that sets what is there already is no change: the source's log does not have it. */
  readonly ignoresEqualUpdates?: boolean
  /** It keeps nothing on the server, so there is nothing to remove. */
  readonly keepsNothing?: boolean
  /** A second process is refused with `source.in_use`. */
  readonly exclusive?: boolean
  /** Other sessions can lock a table against readers. */
  readonly locksReaders?: boolean
  /** The columns besides the key come in an order that the source makes. */
  readonly unorderedColumns?: boolean
  /** The columns of its tables are declared: none is added in mid-stream. */
  readonly fixedColumns?: boolean
  /** Where its log does not say what a row became it reads the row, which may be further by then. */
  readonly readsBack?: boolean
  /** Bytes that the process may hold beyond the rows of one batch while the log is stalled. */
  readonly heldBytes?: number
  /** Rounds of kills; fewer for slow servers. */
  readonly rounds?: number
}
