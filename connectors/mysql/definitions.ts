import { MillraceError } from '../../core/plugin.ts'
import type { ChangeApplier } from './change-applier.ts'
import type { Statement } from './ddl-reader.ts'
import { protocolError } from './mysql-error.ts'

export interface DefinitionsOptions {
  readonly isCaptured: (namespace: string, name: string) => boolean
  /** A statement that may have changed definitions, for the log. */
  readonly onStatement: (namespace: string, kind: string) => void
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

  /**
   * @param isCaptured the statement was captured before a restart, and what it did to rows is in the log
   * @throws source.protocol
   */
  async apply(statement: Statement, namespace: string, { place, isCaptured }: { readonly place: string; readonly isCaptured: boolean }): Promise<void> {
    const { kind } = statement
    if (kind === 'other' || kind === 'change' || kind === 'xa') return
    if (kind === 'truncate' && statement.tables.length === 0) throw protocolError('a TRUNCATE whose table cannot be read', place)
    this.#options.onStatement(namespace, kind)
    if (kind !== 'truncate') this.#applier.forget()
    if (kind === 'definition') return
    if (kind === 'drop database') return this.#dropped.addAll(statement.namespace)
    for (const { namespace, name } of statement.tables) {
      if (!this.#options.isCaptured(namespace, name)) continue
      if (kind === 'drop') {
        this.#drop(namespace, name)
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

  #drop(namespace: string, name: string): void {
    if (this.#options.isCaptured(namespace, name)) this.#dropped.add(namespace, name)
  }
}

/** Captured tables that are gone: a CREATE TABLE IF NOT EXISTS of one makes it, of any other it does nothing. */
class DroppedTables {
  readonly #tables = new Set<string>()
  /** Databases that were dropped, and their tables that were made since. */
  readonly #databases = new Map<string, Set<string>>()

  add(namespace: string, name: string): void {
    this.#tables.add(`${namespace}.${name}`)
  }

  addAll(namespace: string): void {
    this.#databases.set(namespace, new Set())
  }

  /** There is a table of this name now. @returns whether there was none */
  isMade(namespace: string, name: string): boolean {
    const made = this.#databases.get(namespace)
    const wasDropped = this.#tables.delete(`${namespace}.${name}`) || made?.has(name) === false
    made?.add(name)
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
