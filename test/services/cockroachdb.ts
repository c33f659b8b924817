/**
 * A stand-in for CockroachDB, since no server can be had: just the statements that the connector sends, over the Postgres wire, on versioned rows in memory.
 * Its changefeed sends what the public documentation of v25.4 describes: pages "CREATE CHANGEFEED", "Changefeed Messages" and "Changefeed Message Envelope".
 * Like a real one it keeps the order of each key only, sends messages again, and gives the last write alone of a row that a transaction wrote several times.
 */
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { BYTEA, PgwireServer, TEXT, WireError, type WireResult } from './pgwire-server.ts'

/** A value by its JSON, as the database would write it. */
export class Json {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

export type FixtureRow = Readonly<Record<string, unknown>>

export interface FixtureColumn {
  readonly name: string
  readonly type: string
  readonly isKey?: boolean
  readonly hasDefault?: boolean
}

export type FixtureWrite =
  | { readonly op: 'put'; readonly table: string; readonly row: FixtureRow }
  | { readonly op: 'delete'; readonly table: string; readonly key: readonly unknown[] }

interface Version {
  readonly at: bigint
  readonly key: readonly unknown[]
  readonly row: FixtureRow | null
  readonly before: FixtureRow | null
}

interface Table {
  readonly name: string
  readonly oid: number
  readonly shapes: { readonly at: bigint; readonly columns: readonly FixtureColumn[] }[]
  /** In the order of their commit. */
  readonly versions: Version[]
  readonly byKey: Map<string, Version[]>
  droppedAt: bigint | null
  truncatedAt: bigint | null
}

interface Message {
  /** null: a resolved timestamp. */
  readonly topic: string | null
  readonly key: string
  readonly value: string
  readonly resolved: bigint | null
}

interface Feed {
  readonly tables: readonly Table[]
  readonly cursor: bigint
  readonly everyMs: number
  readonly options: string
}

export interface Job {
  readonly id: string
  readonly uri: string
  status: string
  error: string
  highWater: bigint
}

export class CockroachFixture implements AsyncDisposable {
  readonly database = 'shop'
  readonly password = 'roach'
  version = 'CockroachDB CCL v25.4.0 (x86_64-pc-linux-gnu, built 2025/11/01 00:00:00, go1.23.12)'
  cluster = '38269e9c-9823-4568-875e-000000000000'
  gcSeconds = 14_400
  rangefeed = true
  privileges: readonly string[] = ['SELECT', 'CHANGEFEED']
  /** Every statement that came, but SET. */
  readonly statements: string[] = []
  /** Changes a message on its way: for what is corrupted. */
  tamper: (value: string) => string = (value) => value
  asBytes: (value: Buffer) => Buffer = (value) => value
  /** false: changefeeds give rows, and do not say that they are complete. */
  resolves = true
  readonly jobs: Job[] = []
  #server!: PgwireServer
  #tables: Table[] = []
  #clock = 0n
  #threshold = 0n
  #oid = 104

  static async start(): Promise<CockroachFixture> {
    const fixture = new CockroachFixture()
    fixture.#server = await PgwireServer.start({ password: fixture.password, query: (sql, values, isOpen) => fixture.#query(sql, values, isOpen) })
    return fixture
  }

  get settings() {
    return { host: '127.0.0.1', port: this.#server.port, database: this.database, user: 'millrace', password: this.password }
  }

  [Symbol.asyncDispose](): Promise<void> {
    for (const job of this.jobs) job.status = 'canceled'
    return this.#server[Symbol.asyncDispose]()
  }

  restart(): Promise<void> {
    return this.#server.restart()
  }

  /** Versions from before now are collected. */
  collectGarbage(): void {
    this.#threshold = this.now()
  }

  /** Nanoseconds; every call is later than the one before. */
  now(): bigint {
    const real = BigInt(Date.now()) * 1_000_000n
    this.#clock = real > this.#clock ? real : this.#clock + 1n
    return this.#clock
  }

  createTable(name: string, columns: readonly FixtureColumn[]): void {
    const shapes = [{ at: this.now(), columns }]
    this.#tables.push({ name, oid: this.#oid++, shapes, versions: [], byKey: new Map(), droppedAt: null, truncatedAt: null })
  }

  alterTable(name: string, change: (columns: readonly FixtureColumn[]) => readonly FixtureColumn[]): void {
    const { shapes } = this.#table(name)
    shapes.push({ at: this.now(), columns: change(shapes.at(-1)!.columns) })
  }

  dropTable(name: string): void {
    this.#table(name).droppedAt = this.now()
  }

  truncate(name: string): void {
    const table = this.#table(name)
    const at = this.now()
    for (const versions of table.byKey.values()) versions.push({ at, key: versions[0]!.key, row: null, before: null })
    table.truncatedAt = at
  }

  /** All writes in one transaction. */
  write(writes: readonly FixtureWrite[]): bigint {
    const at = this.now()
    for (const write of writes) {
      const table = this.#table(write.table)
      const columns = table.shapes.at(-1)!.columns
      const key = write.op === 'delete' ? write.key : columns.filter(({ isKey }) => isKey === true).map(({ name }) => write.row[name])
      const id = keyId(key)
      const own = table.byKey.get(id) ?? []
      table.byKey.set(id, own)
      const inThis = own.at(-1)?.at === at ? own.pop()! : null
      if (inThis !== null) table.versions.splice(table.versions.indexOf(inThis), 1)
      const version: Version = { at, key, row: write.op === 'put' ? write.row : null, before: inThis?.before ?? own.at(-1)?.row ?? null }
      own.push(version)
      table.versions.push(version)
    }
    return at
  }

  #table(name: string): Table {
    const table = this.#tables.findLast((one) => one.name === name && one.droppedAt === null)
    if (table === undefined) throw new WireError('42P01', `relation "${name}" does not exist`)
    return table
  }

  #tableAt(name: string, at: bigint): Table {
    const table = this.#tables.findLast((one) => one.name === name && one.shapes[0]!.at <= at && (one.droppedAt === null || one.droppedAt > at))
    if (table === undefined) throw new WireError('42P01', `relation "${this.database}.public.${name}" does not exist`)
    return table
  }

  #query(sql: string, values: readonly (string | null)[], isOpen: () => boolean): WireResult {
    if (sql.startsWith('SET ')) return texts()
    this.statements.push(sql)
    if (sql === 'SELECT version()') return texts([this.version])
    if (sql === 'SELECT current_database()') return texts([this.database])
    if (sql === 'SELECT crdb_internal.cluster_id()::STRING') return texts([this.cluster])
    if (sql === 'SELECT cluster_logical_timestamp()::STRING') return texts([`${this.now()}.0000000000`])
    if (sql === 'SHOW CLUSTER SETTING kv.rangefeed.enabled') return texts([String(this.rangefeed)])
    if (sql.startsWith('SHOW ZONE CONFIGURATION FROM TABLE ')) {
      const target = sql.slice('SHOW ZONE CONFIGURATION FROM '.length)
      // show-zone-configurations.md
      return texts([
        target,
        `ALTER ${target} CONFIGURE ZONE USING\n    range_min_bytes = 134217728,\n    gc.ttlseconds = ${this.gcSeconds},\n    num_replicas = 5`,
      ])
    }
    if (sql.includes('[SHOW GRANTS ON TABLE')) return texts(...this.privileges.map((privilege) => [privilege]))
    if (sql.includes('FROM information_schema.tables')) {
      return texts(...(this.#tables.some(({ name, droppedAt }) => name === values[1] && droppedAt === null) ? [['1']] : []))
    }
    if (sql.includes('[SHOW CHANGEFEED JOBS]'))
      return texts(...this.jobs.map(({ id, status, error, uri }) => [id, status, error, uri.replace(/ca_cert=[^&]*/, 'ca_cert=redacted')]))
    const [, verb, id] = /^(CANCEL|RESUME) JOB (\d+)$/.exec(sql) ?? []
    if (verb !== undefined) {
      const job = this.jobs.find((one) => one.id === id)!
      job.status = verb === 'CANCEL' ? 'canceled' : 'running'
      return texts()
    }
    if (sql.startsWith('CREATE CHANGEFEED FOR TABLE ')) return this.#changefeed(sql, isOpen)
    const at = BigInt(/AS OF SYSTEM TIME '(\d+)\.2147483647'/.exec(sql)?.[1] ?? -1n)
    if (at <= this.#threshold) throw new WireError('XXUUU', `batch timestamp ${at} must be after replica GC threshold ${this.#threshold}`)
    if (at > this.now()) throw new WireError('XX000', `cannot specify timestamp in the future (${at})`)
    if (sql.includes('FROM information_schema.columns c')) return texts(...this.#columns(at))
    const name = /FROM "shop"\."public"\."([^"]+)" AS OF/.exec(sql)?.[1]
    if (name === undefined) throw new WireError('42601', `the fixture does not know: ${sql}`)
    return texts(...(sql.startsWith('SELECT 1 ') ? [['1']] : this.#page(this.#tableAt(name, at), at, sql, values)))
  }

  *#columns(at: bigint): Generator<readonly (string | null)[]> {
    for (const table of this.#tables.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
      if (table.shapes[0]!.at > at || (table.droppedAt !== null && table.droppedAt <= at)) continue
      const key = columnsAt(table, at).filter(({ isKey }) => isKey === true)
      const ever = [...new Set(table.shapes.flatMap(({ columns }) => columns.map(({ name }) => name)))]
      for (const { name, type, isKey, hasDefault } of columnsAt(table, at)) {
        const place = isKey === true ? String(key.findIndex((column) => column.name === name) + 1) : null
        const isEnum = type.includes('.') ? 't' : 'f'
        const flag = (value: boolean | undefined) => (value === true ? 't' : 'f')
        yield ['public', table.name, String(table.oid), name, String(ever.indexOf(name) + 1), type, isEnum, flag(isKey), flag(hasDefault), place]
      }
    }
  }

  *#page(table: Table, at: bigint, sql: string, values: readonly (string | null)[]): Generator<readonly (string | null)[]> {
    const limit = Number(/LIMIT (\d+)$/.exec(sql)![1])
    const columns = columnsAt(table, at)
    const rows = [...table.byKey.values()]
      .map((versions) => versions.findLast((version) => version.at <= at))
      .filter((version) => version !== undefined && version.row !== null)
      .sort((a, b) => compareKeys(a!.key, b!.key))
      .filter((version) => values.length === 0 || compareKeys(version!.key.map(castAs), values.map(castAs)) > 0)
    for (const version of rows.slice(0, limit)) {
      const cells = columns.map(({ name }) => {
        const json = jsonOf(version!.row![name])
        return json === 'null' ? null : json === JSON_NULL ? 'null' : json
      })
      yield [...cells, ...version!.key.map(String)]
    }
  }

  #changefeed(sql: string, isOpen: () => boolean): WireResult {
    const [, list = '', uri, options = ''] = /^CREATE CHANGEFEED FOR TABLE (.*?)(?: INTO '([^']*)')? WITH (.*)$/.exec(sql) ?? []
    const cursor = BigInt(/cursor = '(\d+)\.2147483647'/.exec(options)?.[1] ?? -1n)
    const everyMs = Number(/resolved = '(\d+)ms'/.exec(options)?.[1])
    if (cursor <= this.#threshold) throw new WireError('XXUUU', `batch timestamp ${cursor} must be after replica GC threshold ${this.#threshold}`)
    const tables = list.split(', ').map((name) => this.#tableAt(/\."([^."]+)"$/.exec(name)![1]!, cursor))
    const feed: Feed = { tables, cursor, everyMs, options }
    if (uri !== undefined) {
      const job: Job = { id: String(1_066_457_644_516_704_257n + BigInt(this.jobs.length)), uri, status: 'running', error: '', highWater: cursor }
      this.jobs.push(job)
      void this.#runJob(job, feed)
      return texts([job.id])
    }
    return {
      columns: [
        { name: 'table', oid: TEXT },
        { name: 'key', oid: BYTEA },
        { name: 'value', oid: BYTEA },
      ],
      rows: this.#wireRows(feed, isOpen),
    }
  }

  async *#wireRows(feed: Feed, isOpen: () => boolean): AsyncGenerator<readonly (string | null)[]> {
    const hex = (text: string) => `\\x${this.asBytes(Buffer.from(text)).toString('hex')}`
    for await (const { topic, key, value } of this.#emit(feed, isOpen)) yield [topic, topic === null ? null : hex(key), hex(value)]
  }

  /** Posts batches as changefeed-sinks.md ("Webhook sink messages") shows them, and starts again from its last checkpoint when one is not answered with 200. */
  async #runJob(job: Job, feed: Feed): Promise<void> {
    const isOpen = () => job.status === 'running'
    while (job.status !== 'canceled' && job.status !== 'failed') {
      try {
        let batch: string[] = []
        const flush = async () => {
          if (batch.length > 0) await post(job.uri, `{"payload":[${batch.join()}],"length":${batch.length}}`)
          batch = []
        }
        for await (const { value, resolved } of this.#emit({ ...feed, cursor: job.highWater }, isOpen)) {
          if (resolved === null) {
            batch.push(value)
            if (batch.length >= 50) await flush()
            continue
          }
          await flush()
          await post(job.uri, value)
          job.highWater = resolved
        }
      } catch (error) {
        if (error instanceof WireError) {
          job.status = 'failed'
          job.error = error.message
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  async *#emit({ tables, cursor, everyMs, options }: Feed, isOpen: () => boolean): AsyncGenerator<Message> {
    const sent = tables.map(({ versions }) => versions.findIndex(({ at }) => at > cursor)).map((at, i) => (at < 0 ? tables[i]!.versions.length : at))
    let resolved = cursor
    let count = 0
    while (isOpen()) {
      for (const { name, truncatedAt, droppedAt } of tables) {
        // changefeedccl's own words for what ends a changefeed
        if (droppedAt !== null && droppedAt > cursor) throw new WireError('XXUUU', `"${name}" was dropped`)
        if (truncatedAt !== null && truncatedAt > cursor) throw new WireError('XXUUU', `"${name}" was truncated`)
      }
      const now = this.now()
      const fresh = tables.flatMap((table, i) => {
        const versions = table.versions.slice(sent[i])
        sent[i] = table.versions.length
        return versions.map((version) => ({ table, version }))
      })
      const again: Message[] = []
      // by key, so that the order is that of each key only
      for (const { table, version } of fresh.sort((a, b) => hash(a.version.key) - hash(b.version.key))) {
        const message = this.#message(table, version, options)
        yield message
        if (count++ % 7 === 3) again.push(message)
      }
      for (const message of again) yield message
      // sometimes rows come before what is resolved gets to them
      const last = fresh.reduce((most, { version: { at } }) => (at > most ? at : most), 0n)
      const upTo = fresh.length > 3 && last - 1n > resolved ? last - 1n : now
      resolved = upTo
      if (this.resolves) yield { topic: null, key: '', value: this.tamper(`{"resolved":"${upTo}.0000000000"}`), resolved: upTo }
      if (upTo === now) await new Promise((resolve) => setTimeout(resolve, everyMs))
    }
  }

  #message(table: Table, version: Version, options: string): Message {
    const columns = columnsAt(table, version.at)
    const image = (row: FixtureRow | null) => (row === null ? 'null' : object(columns.map(({ name }) => [name, jsonOf(row[name])])))
    const at = `${version.at}.0000000000`
    const isEnriched = options.includes("envelope = 'enriched'")
    const keyNames = columns.filter(({ isKey }) => isKey === true).map(({ name }) => name)
    const key = isEnriched ? object(keyNames.map((name, n) => [name, jsonOf(version.key[n])])) : `[${version.key.map(jsonOf).join(', ')}]`
    const members: [string, string][] = [['after', image(version.row)]]
    if (options.includes('diff')) members.push(['before', image(version.before)])
    if (isEnriched) {
      const op = version.row === null ? 'd' : version.before === null ? 'c' : 'u'
      const source: [string, string][] = [
        ['changefeed_sink', '"sinkless buffer"'],
        ['cluster_id', `"${this.cluster}"`],
        ['database_name', `"${this.database}"`],
        ['origin', '"cockroachdb"'],
        ['primary_keys', JSON.stringify(keyNames)],
        ['schema_name', '"public"'],
        ['table_name', JSON.stringify(table.name)],
        ['ts_hlc', `"${at}"`],
        ['ts_ns', String(version.at)],
      ]
      members.push(['op', `"${op}"`], ['source', object(source)], ['ts_ns', String(this.now())])
    } else members.push(['updated', `"${at}"`])
    const topic = `${this.database}.public.${table.name}`
    // topic_in_value and key_in_value are on for webhooks
    if (options.includes('webhook_sink_config')) members.push(['key', key], ...(isEnriched ? [] : [['topic', JSON.stringify(topic)] as [string, string]]))
    return { topic, key, value: this.tamper(object(members)), resolved: null }
  }
}

/** A value of a JSONB column that is the JSON null. */
export const JSON_NULL = '{"__crdb_json_null__": true}'

const jsonOf = (value: unknown) => (value instanceof Json ? value.text : JSON.stringify(value ?? null))
const object = (entries: readonly (readonly [string, string])[]) =>
  `{${entries
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, json]) => `${JSON.stringify(name)}: ${json}`)
    .join(', ')}}`
const keyId = (key: readonly unknown[]) => JSON.stringify(key.map(jsonOf))
const columnsAt = (table: Table, at: bigint) => (table.shapes.findLast((shape) => shape.at <= at) ?? table.shapes[0]!).columns
const castAs = (value: unknown) => (/^-?\d+$/.test(String(value)) ? Number(value) : value)

function compareKeys(a: readonly unknown[], b: readonly unknown[]): number {
  for (const [i, value] of a.entries()) if (value !== b[i]) return (value as number) < (b[i] as number) ? -1 : 1
  return 0
}

function hash(key: readonly unknown[]): number {
  let value = 7
  for (const character of keyId(key)) value = (value * 31 + character.charCodeAt(0)) % 1009
  return value
}

function texts(...rows: readonly (readonly (string | null)[])[]): WireResult {
  const width = rows[0]?.length ?? 0
  return { columns: Array.from({ length: width }, (_, n) => ({ name: `c${n}`, oid: TEXT })), rows }
}

/** @throws when the answer is none of success */
async function post(sink: string, body: string): Promise<void> {
  const url = new URL(sink.replace(/^webhook-/, ''))
  const ca = Buffer.from(url.searchParams.get('ca_cert') ?? '', 'base64').toString()
  url.search = ''
  const sent = request(url, { method: 'POST', ca, timeout: 30_000, headers: { 'content-type': 'application/json' } })
  sent.end(body)
  const [answer] = (await once(sent, 'response')) as [IncomingMessage]
  answer.resume()
  if (answer.statusCode !== 200) throw new Error(`the webhook answered ${answer.statusCode}`)
}
