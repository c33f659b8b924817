import type { PluginContext } from '../../core/plugin.ts'
import type { CatalogReader, CatalogTable } from './catalog.ts'
import type { SqlSession } from './sql-session.ts'

const LOOK_MS = 30_000
/** The windows themselves are asked for this often. */
const WINDOW_MS = 600_000
/** Part of the window that is used up when it is told. */
const ALARM = 0.5

/** For how long the cluster keeps the versions of a table, in seconds; null: it does not say. */
export async function gcSeconds(sql: SqlSession, table: CatalogTable): Promise<number | null> {
  const rows = await sql.query('to ask for gc.ttlseconds', `SHOW ZONE CONFIGURATION FROM TABLE ${table.sqlName}`)
  const found = /gc\.ttlseconds\s*=\s*(\d+)/.exec(rows.map((row) => row.join(' ')).join(' '))
  return found === null ? null : Number(found[1])
}

/** Tells when the stream is so far behind that the cluster may soon collect what it needs: a changefeed without a sink protects nothing. */
export class GcWatch {
  readonly #sql: SqlSession
  readonly #catalog: CatalogReader
  readonly #context: Pick<PluginContext, 'logger' | 'metric'>
  #lookedAt = Number.NEGATIVE_INFINITY
  #askedAt = Number.NEGATIVE_INFINITY
  /** The shortest one, in seconds. */
  #window = Number.POSITIVE_INFINITY
  #told = false

  constructor(sql: SqlSession, catalog: CatalogReader, context: Pick<PluginContext, 'logger' | 'metric'>) {
    this.#sql = sql
    this.#catalog = catalog
    this.#context = context
  }

  /** Asks at most twice a minute. Never throws: the stream itself says what is wrong with the cluster. */
  async look(wall: bigint, tables: readonly CatalogTable[]): Promise<void> {
    if (performance.now() - this.#lookedAt < LOOK_MS || tables.length === 0) return
    this.#lookedAt = performance.now()
    try {
      if (this.#lookedAt - this.#askedAt >= WINDOW_MS) {
        const windows = await Promise.all(tables.map((table) => gcSeconds(this.#sql, table)))
        this.#window = windows.reduce<number>((least, seconds) => Math.min(least, seconds ?? least), Number.POSITIVE_INFINITY)
        this.#askedAt = this.#lookedAt
      }
      const window = this.#window
      const behind = Number((await this.#catalog.now()) - wall) / 1e9
      const used = behind / window
      this.#context.metric('cockroachdb_gc_window_used_ratio', used, 'gauge')
      if (used > ALARM && !this.#told) {
        this.#context.logger.warn(
          { behindSeconds: Math.round(behind), gcSeconds: window },
          'the stream is so far behind that the cluster may soon collect the versions it needs: raise gc.ttlseconds, or see what holds it',
        )
      }
      this.#told = used > ALARM
    } catch (error) {
      this.#context.logger.debug({ error }, 'gc.ttlseconds cannot be asked for')
    }
  }
}
