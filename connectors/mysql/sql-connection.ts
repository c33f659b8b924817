import { addAbortListener } from 'node:events'
import { MillraceError } from '../../core/plugin.ts'
import { mysqlError } from './mysql-error.ts'
import { type ConnectOptions, WireConnection } from './wire-connection.ts'

/** For an answer about one table or row, for which the stream may wait: milliseconds, but for a statement that holds the table for itself alone. */
export const CATALOG_SILENCE_MS = 60_000

/**
 * Ordinary connections, made when needed and kept: each `run` has one of its own. `setup` is run once on each.
 */
export class SqlConnections implements AsyncDisposable {
  readonly #options: ConnectOptions
  readonly #setup: readonly string[]
  readonly #silenceMs: number | null
  readonly #idle: WireConnection[] = []
  readonly #used = new Set<WireConnection>()
  readonly #stop = new AbortController()

  /** @param silenceMs a server that says nothing for so long while it is asked is given up; null: what is asked may take as long as it takes */
  constructor(options: ConnectOptions, setup: readonly string[], silenceMs: number | null = null) {
    this.#options = options
    this.#setup = setup
    this.#silenceMs = silenceMs
  }

  /**
   * @param doing reads like `to list tables`
   * @param silenceMs instead of the constructor's, for this work
   * @throws source.unreachable, source.forbidden, source.unprepared; what `work` throws of ours
   */
  async run<T>(doing: string, work: (connection: WireConnection) => Promise<T>, silenceMs = this.#silenceMs): Promise<T> {
    if (this.#stop.signal.aborted) throw new MillraceError('source.unreachable', 'the connection is closed')
    let connection: WireConnection | undefined
    try {
      do connection = this.#idle.pop()
      while (connection?.broken)
      connection ??= await this.#connect()
      this.#used.add(connection)
      connection.silenceMs = silenceMs
      if (this.#stop.signal.aborted) connection.destroy()
      const result = await work(connection)
      if (this.#stop.signal.aborted) connection.destroy()
      else if (!connection.broken) this.#idle.push(connection)
      return result
    } catch (error) {
      // after a statement's own failure the connection is sound, but the work may have left a transaction open
      connection?.destroy()
      if (error instanceof Error && error.name === 'AbortError') throw error
      throw mysqlError(error, doing)
    } finally {
      if (connection !== undefined) this.#used.delete(connection)
    }
  }

  async #connect(): Promise<WireConnection> {
    const { signal } = this.#stop
    const connection = await WireConnection.connect(this.#options, signal)
    connection.silenceMs = this.#silenceMs
    using _ = addAbortListener(signal, () => connection.destroy())
    try {
      for (const sql of this.#setup) await connection.query(sql)
      return connection
    } catch (error) {
      connection.destroy()
      throw error
    }
  }

  /** Takes no more work; what is under way is given up. */
  close(): void {
    this.#stop.abort()
    for (const connection of this.#used) connection.destroy()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
    for (const connection of this.#idle.splice(0)) await connection[Symbol.asyncDispose]()
  }
}
