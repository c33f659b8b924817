import { setTimeout as delay } from 'node:timers/promises'
import { parseLsn } from '../../connectors/postgres/lsn.ts'
import type { SourceConnector, SourceOffset } from '../../core/plugin.ts'
import type { TestDatabase } from '../services/postgres.ts'
import { RecordingOutput } from './recording-output.ts'

/** Waits for progress. @throws when `condition` does not hold within `ms` */
export async function until(what: string, condition: () => boolean | Promise<boolean>, ms = 60_000): Promise<void> {
  const deadline = performance.now() + ms
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`not within ${ms} ms: ${what}`)
    await delay(10)
  }
}

/** A Postgres source that streams into a RecordingOutput as a capture would. */
export class RunningCapture {
  readonly output = new RecordingOutput()
  readonly connector: SourceConnector
  readonly offsets: SourceOffset[] = []
  failure: unknown = null
  /** Milliseconds that each piece of input takes the whole process. */
  slowness = 0
  readonly #db: Pick<TestDatabase, 'sql'>
  readonly #abort = new AbortController()
  readonly #done: Promise<void>
  #held: Promise<void> | null = null

  constructor(connector: SourceConnector, from: SourceOffset, db: Pick<TestDatabase, 'sql'>) {
    this.connector = connector
    this.#db = db
    this.output.isRewritten = (before, now) => connector.isRewritten(before, now)
    this.#done = this.#run(from).catch((error: unknown) => {
      this.failure = error
    })
  }

  async #run(from: SourceOffset): Promise<void> {
    for await (const offset of this.connector.changes(from, this.output, this.#abort.signal)) {
      if (this.offsets.at(-1) !== offset) this.offsets.push(offset)
      if (this.#held !== null) await this.#held
      if (this.slowness > 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, this.slowness)
    }
  }

  get offset(): SourceOffset {
    return this.offsets.at(-1)!
  }

  /** Takes nothing more from the source, like a log that stalls. @returns what lets it go on */
  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#held = promise
    return () => {
      this.#held = null
      resolve()
    }
  }

  /** Waits until all that is committed now has been streamed. */
  async caughtUp(): Promise<void> {
    const { rows } = await this.#db
      .sql('create table if not exists done (id int primary key)')
      // two that ask at once may both find it missing: the later one meets the row, the table or the table's type of the other
      .catch((error: { code?: string }) => {
        if (!['23505', '42P07', '42710'].includes(error.code!)) throw error
      })
      .then(() => this.#db.sql('select pg_current_wal_lsn()::text as lsn'))
    const target = parseLsn(rows[0].lsn)
    await until(`the stream reaches ${rows[0].lsn}`, () => {
      if (this.failure !== null) throw this.failure
      return this.offsets.length > 0 && parseLsn(this.offset.lsn as string) >= target
    })
  }

  async stop(): Promise<void> {
    this.#abort.abort()
    await this.#done
    await this.connector[Symbol.asyncDispose]()
  }
}
