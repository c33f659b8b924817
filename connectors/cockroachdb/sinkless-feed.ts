import pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'
import type { CatalogTable } from './catalog.ts'
import type { FeedMessage } from './changefeed-message.ts'
import { type CockroachdbConfig, clientConfig } from './cockroachdb-config.ts'
import { type ChangeFeed, FeedQueue } from './feed-queue.ts'
import { endOf } from './hlc.ts'
import { cockroachError, connectClient, literal } from './sql-session.ts'

/** The connection is not read while this much waits to be taken. */
const MOST_WAITING_BYTES = 256 * 1024

/** The statement of a changefeed that gives what comes after a nanosecond, and nothing of before: to this connection, or into a sink with options of its own. */
export function changefeedStatement(
  config: CockroachdbConfig,
  tables: readonly CatalogTable[],
  after: bigint,
  sink: { readonly uri: string; readonly options: readonly string[] } | null = null,
): string {
  const often = literal(`${config.resolvedMs}ms`)
  const options = [
    'updated',
    `resolved = ${often}`,
    `min_checkpoint_frequency = ${often}`,
    `cursor = ${literal(endOf(after))}`,
    "initial_scan = 'no'",
    'full_table_name',
    // rows that a new column has a value of are read again by Millrace, in chunks, while this streams
    "schema_change_policy = 'nobackfill'",
    'encode_json_value_null_as_object',
    ...(config.diff ? ['diff'] : []),
    ...(config.envelope === 'enriched' ? ["envelope = 'enriched'", "enriched_properties = 'source'"] : []),
    ...(sink?.options ?? []),
  ]
  const into = sink === null ? '' : ` INTO ${literal(sink.uri)}`
  return `CREATE CHANGEFEED FOR TABLE ${tables.map(({ sqlName }) => sqlName).join(', ')}${into} WITH ${options.join(', ')}`
}

/** A changefeed without a sink: rows of a query without end, on a connection of its own. It keeps nothing on the server. */
export class SinklessFeed implements ChangeFeed {
  readonly #client: pg.Client
  readonly #queue: FeedQueue

  private constructor(client: pg.Client, queue: FeedQueue) {
    this.#client = client
    this.#queue = queue
  }

  static async open(config: CockroachdbConfig, tables: readonly CatalogTable[], after: bigint): Promise<SinklessFeed> {
    const queue = new FeedQueue()
    const lost = () => queue.fail(new MillraceError('source.unreachable', 'the connection of the changefeed broke'))
    const feed = new SinklessFeed(await connectClient(clientConfig(config), lost), queue)
    feed.#start(changefeedStatement(config, tables, after))
    return feed
  }

  #start(text: string): void {
    const query = new pg.Query({ text, rowMode: 'array' } as pg.QueryConfig)
    query.on('row', (row: unknown) => {
      const [table, key, value] = row as readonly [unknown, unknown, unknown]
      this.#queue.put([{ table: table as string | null, key: bytesOf(key), value: bytesOf(value) }])
      if (this.#queue.bytes > MOST_WAITING_BYTES) this.#client.connection.stream.pause()
    })
    query.on('error', (error: Error) => this.#queue.fail(cockroachError(error, 'to run the changefeed')))
    query.on('end', () => this.#queue.fail(new MillraceError('source.unreachable', 'the changefeed ended by itself')))
    this.#client.query(query)
  }

  wake(): void {
    this.#queue.wake()
  }

  async next(): Promise<readonly FeedMessage[]> {
    const messages = await this.#queue.take()
    if (this.#client.connection.stream.isPaused()) this.#client.connection.stream.resume()
    return messages
  }

  release(): void {}

  async [Symbol.asyncDispose](): Promise<void> {
    // only the end of its connection ends a changefeed: its rows are never read to their end
    this.#client.connection.stream.destroy()
    await this.#client.end().catch(() => {})
  }
}

function bytesOf(value: unknown): Buffer {
  return Buffer.isBuffer(value) ? value : Buffer.from(typeof value === 'string' ? value : '')
}
