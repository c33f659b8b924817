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
  /** Captured tables that were dropped, and not created since. */
  readonly #dropped = new Set<string>()

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
    for (const { namespace, name } of statement.tables) {
      if (!this.#options.isCaptured(namespace, name)) continue
      const id = `${namespace}.${name}`
      const wasDropped = kind === 'create' && this.#dropped.delete(id)
      if (kind === 'drop') this.#dropped.add(id)
      else if (isCaptured) continue
      else if (kind === 'truncate') await this.#applier.truncate(namespace, name)
      else if (kind === 'replace') this.#applier.setAside({ namespace, name }, replaced(id, place))
      else if (wasDropped || !statement.isConditional) await this.#applier.recreate(namespace, name)
    }
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
