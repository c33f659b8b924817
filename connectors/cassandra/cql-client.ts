import type { ConnectionOptions } from 'node:tls'
import cassandra from 'cassandra-driver'
import { MillraceError } from '../../core/plugin.ts'
import type { CassandraConfig } from './cassandra-config.ts'

/** A result as the driver has it: rows by column name. */
export interface CqlPage {
  readonly rows: readonly Readonly<Record<string, unknown>>[]
  readonly next: string | null
}

export interface CqlOptions {
  /** Default: ONE, for what every node knows by itself. */
  readonly consistency?: CassandraConfig['consistency']
  readonly fetchSize?: number
  readonly page?: string | null
}

/** The cluster by `cassandra-driver`, with errors of ours. */
export class CqlClient implements AsyncDisposable {
  readonly #client: cassandra.Client
  readonly localDataCenter: string

  private constructor(client: cassandra.Client, localDataCenter: string) {
    this.#client = client
    this.localDataCenter = localDataCenter
  }

  /** @throws source.unreachable, source.forbidden */
  static async connect(config: CassandraConfig): Promise<CqlClient> {
    const client = new cassandra.Client({
      contactPoints: config.contactPoints.map((point) => (/(^[^:]+:\d+$)|(\]:\d+$)/.test(point) ? point : `${point}:${config.port}`)),
      localDataCenter: config.localDataCenter,
      // all of them speak it; over TLS a server answers an offer of more twice, and the driver then takes one number for two requests
      protocolOptions: { maxVersion: cassandra.types.protocolVersion.v4 },
      ...(config.user === undefined ? {} : { credentials: { username: config.user, password: config.password ?? '' } }),
      ...(config.ssl === undefined || config.ssl === false ? {} : { sslOptions: tlsOptions(config.ssl) }),
      encoding: { useBigIntAsLong: true, useBigIntAsVarint: true, set: Set, map: Map, copyBuffer: true, ...KEEPS_BYTES },
      // tables are asked for when they are looked at
      isMetadataSyncEnabled: false,
      queryOptions: { prepare: true },
    })
    try {
      await client.connect()
      return new CqlClient(client, config.localDataCenter)
    } catch (error) {
      await client.shutdown().catch(() => {})
      throw cqlError(error, 'to connect')
    }
  }

  /** All rows. `doing` says what for: `to list the tables`. */
  async rows(doing: string, text: string, values: readonly unknown[] = [], options: CqlOptions = {}): Promise<CqlPage['rows']> {
    const all: Readonly<Record<string, unknown>>[] = []
    let page: string | null = null
    do {
      const result: CqlPage = await this.page(doing, text, values, { ...options, page })
      all.push(...result.rows)
      page = result.next
    } while (page !== null)
    return all
  }

  /** Also those that are down. @param inDataCenter of the data center only */
  countNodes(inDataCenter: boolean): number {
    return this.#client.hosts.values().filter((host) => !inDataCenter || host.datacenter === this.localDataCenter).length
  }

  /** The one row that each node of the data center keeps for itself. Nodes that do not answer are left out. @throws when none does */
  async ofEachNode(doing: string, text: string): Promise<CqlPage['rows']> {
    const nodes = this.#client.hosts.values().filter((host) => host.isUp() && host.datacenter === this.localDataCenter)
    const asked = await Promise.allSettled(nodes.map((host) => this.#client.execute(text, [], { host, consistency: ONE })))
    const rows = asked.flatMap((one) => (one.status === 'fulfilled' ? (one.value.rows as unknown as CqlPage['rows']) : []))
    const failed = asked.find((one) => one.status === 'rejected')
    if (rows.length === 0) throw cqlError(failed?.reason ?? new Error('no node of the data center is up'), doing)
    return rows
  }

  async page(doing: string, text: string, values: readonly unknown[], options: CqlOptions = {}): Promise<CqlPage> {
    try {
      const result = await this.#client.execute(text, values as unknown[], {
        prepare: true,
        consistency: cassandra.types.consistencies[CONSISTENCY[options.consistency ?? 'ONE']],
        ...(options.fetchSize === undefined ? {} : { fetchSize: options.fetchSize }),
        ...(options.page == null ? {} : { pageState: options.page }),
      })
      return { rows: result.rows as unknown as CqlPage['rows'], next: result.pageState ?? null }
    } catch (error) {
      throw cqlError(error, doing)
    }
  }

  /** Values go and come in serialized form, but for tokens and write times (bigint) and times to live (number). */
  async raw(doing: string, text: string, values: readonly (Buffer | null)[], options: CqlOptions = {}): Promise<CqlPage> {
    try {
      const result = await this.#client.execute(text, values as unknown[], {
        // bytes for any type: the server checks them itself
        prepare: false,
        consistency: cassandra.types.consistencies[CONSISTENCY[options.consistency ?? 'ONE']],
        ...(options.fetchSize === undefined ? {} : { fetchSize: options.fetchSize }),
        ...(options.page == null ? {} : { pageState: options.page }),
      })
      const rows = result.rows.map((row) => Object.fromEntries(result.columns.map(({ name }) => [name, serialized(row[name])])))
      return { rows, next: result.pageState ?? null }
    } catch (error) {
      throw cqlError(error, doing)
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#client.shutdown()
  }
}

const ONE = cassandra.types.consistencies.one

type Decode = (this: { readonly encodingOptions: object }, bytes: Buffer | null, type: { readonly code: number }) => unknown

/** What the driver decoded of containers, with the bytes that it had. */
const containerBytes = new WeakMap<object, Buffer>()
/** vector and other classes; list, map, set, user type, tuple. */
const [CUSTOM, CONTAINERS] = [0x0000, new Set([0x0020, 0x0021, 0x0022, 0x0030, 0x0031])]
const KEEPS_BYTES = { keepsBytes: true }

/**
 * No query gets a container's bytes as a blob, and what the driver makes of them is not all that they say: an empty element becomes null, a time of the far
 * future none, and 0 and -0 one. So its decoder, which its own queries need, keeps the bytes beside what it makes, for clients that ask.
 */
const { Encoder } = cassandra as unknown as { Encoder: { prototype: { decode: Decode } } }
const { decode } = Encoder.prototype
Encoder.prototype.decode = function (bytes, type) {
  if (!('keepsBytes' in this.encodingOptions)) return decode.call(this, bytes, type)
  if (type.code === CUSTOM) return bytes === null ? null : Buffer.from(bytes)
  const value = decode.call(this, bytes, type)
  if (CONTAINERS.has(type.code) && typeof value === 'object' && value !== null) containerBytes.set(value, bytes!)
  return value
}

/** Bytes of containers; blobs, bigint and int, what queries here ask for besides, as they are. */
function serialized(value: unknown): unknown {
  const bytes = typeof value === 'object' && value !== null ? containerBytes.get(value) : undefined
  return bytes === undefined ? (value ?? null) : Buffer.from(bytes)
}

const CONSISTENCY = {
  ONE: 'one',
  TWO: 'two',
  THREE: 'three',
  QUORUM: 'quorum',
  ALL: 'all',
  LOCAL_QUORUM: 'localQuorum',
  EACH_QUORUM: 'eachQuorum',
  LOCAL_ONE: 'localOne',
} as const satisfies Record<CassandraConfig['consistency'], keyof typeof cassandra.types.consistencies>

/** As the driver takes it; without authorities of their own, the well-known ones. */
function tlsOptions(ssl: Exclude<CassandraConfig['ssl'], undefined | false>): ConnectionOptions {
  if (ssl === true) return { rejectUnauthorized: true }
  const { ca, cert, key, rejectUnauthorized } = ssl
  return {
    rejectUnauthorized,
    ...(ca === undefined ? {} : { ca: [ca] }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
  }
}

/** Of `system` errors: bad credentials. */
const NO_LOGIN = 0x0100
/** A privilege is missing. */
const UNAUTHORIZED = 0x2100
/** A statement that the server does not take: syntax, invalid, configuration. */
const REFUSED = new Set([0x2000, 0x2200, 0x2300])

function cqlError(error: unknown, doing: string): MillraceError {
  if (error instanceof MillraceError) return error
  const cause = error instanceof Error ? error : new Error(String(error))
  // of each node that was tried; the whole has their stacks in its message
  const inner = Object.values((cause as { innerErrors?: Record<string, Error> }).innerErrors ?? {})
  const all = inner.length > 0 ? inner : [cause]
  const codes = all.map((one) => (one as { code?: unknown }).code)
  const text = [...new Set(all.map((one) => (one as { reason?: string }).reason ?? one.message.split('\n')[0]!))].join('; ')
  const of = (code: 'source.forbidden' | 'source.unprepared' | 'source.unreachable', fix: string) =>
    new MillraceError(code, `the cluster failed ${doing}: ${text}`, { fix, cause })
  if (all.some(({ name }) => name === 'AuthenticationError') || codes.includes(NO_LOGIN)) return of('source.forbidden', 'check user and password of the source')
  if (codes.includes(UNAUTHORIZED)) {
    const [, user, table] = /User (\S+) has no SELECT permission on <table ([^>]+)>/.exec(text) ?? []
    return of('source.forbidden', table === undefined ? 'GRANT SELECT on the tables to the user of the source' : `GRANT SELECT ON ${table} TO ${user}`)
  }
  if (codes.some((code) => /ALERT/.test(String(code)))) {
    return of('source.forbidden', 'the node asks clients for a certificate: set cert and key in `ssl`, of an authority that it trusts')
  }
  if (codes.some((code) => /CERT|SSL|TLS|SELF_SIGNED|UNABLE_TO_VERIFY/.test(String(code)))) {
    return of('source.forbidden', 'check `ssl` of the source: its ca must be of who issued the certificate of the node, which must name the address')
  }
  if (codes.some((code) => REFUSED.has(code as number))) return of('source.unprepared', 'run `millrace check`: it names what the cluster lacks')
  if (/localDataCenter/.test(text)) return of('source.unprepared', 'set localDataCenter to the data center that `nodetool status` names')
  return of('source.unreachable', 'check contactPoints, port, that the node runs, and `ssl` when it asks for TLS')
}
