import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterAll, expect, test } from 'vitest'
import { type CassandraOffset, readOffset, writeOffset } from '../../../../connectors/cassandra/cassandra-offset.ts'
import { CassandraSource, type CassandraSourceParts } from '../../../../connectors/cassandra/cassandra-source.ts'
import type { Cell, PartitionUpdate, TableDescription } from '../../../../connectors/cassandra/commit-log-events.ts'
import { KnownRows } from '../../../../connectors/cassandra/known-rows.ts'
import { type MappedTable, mapCaptured } from '../../../../connectors/cassandra/table-mapping.ts'
import { tokenOf } from '../../../../connectors/cassandra/token.ts'
import { type Json, type PluginContext, TablePatterns, type TransactionStart, UNCHANGED, type Value } from '../../../../core/plugin.ts'
import { seeded } from '../../../../testing/source/workload.ts'
import { RecordingOutput } from '../../../integration/recording-output.ts'

const root = mkdtempSync(path.join(os.tmpdir(), 'millrace-told-late-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

const column = (name: string, kind: 'partition_key' | 'clustering' | 'regular') =>
  ({ name, kind, position: kind === 'regular' ? -1 : 0, type: { kind: 'native', name: 'text' }, reversed: false, dropped: false }) as const
/** Nobody writes `seen`: a row that was read has there how many writes the cluster had by then. */
const description: TableDescription = {
  id: 't',
  keyspace: 'shop',
  name: 'items',
  captured: true,
  columns: [column('p', 'partition_key'), column('c', 'clustering'), column('a', 'regular'), column('b', 'regular'), column('seen', 'regular')],
}
const LOG = 'log'
const ENTRIES = 150
/** Offsets that were yielded last. */
const MAY_BE_LOST = 3

interface Write {
  readonly p: string
  readonly c: string
  readonly at: number
  /** A deletion of the row, or the cells of an INSERT or an UPDATE; null is a tombstone. */
  readonly kind: 'delete' | 'insert' | 'update'
  readonly cells: Readonly<Partial<Record<'a' | 'b', string | null>>>
}

/** Writes to a few rows, some with times from before others. */
function writesOf(random: (below: number) => number): readonly Write[] {
  return Array.from({ length: ENTRIES }, (_, i): Write => {
    const late = random(3) === 0 ? random(60) : 0
    // no two have the same time
    const key = { p: `p${random(3)}`, c: `c${random(4)}`, at: 1_000_000 + (i - late) * 1000 + (i % 1000) }
    const chosen = random(6)
    if (chosen === 0) return { ...key, kind: 'delete', cells: {} }
    const cell = (name: string) => (random(5) === 0 ? null : `${name}${i}`)
    const cells = [{ a: cell('a'), b: cell('b') }, { a: cell('a') }, { b: cell('b') }][random(3)]!
    return { ...key, kind: chosen < 3 ? 'insert' : 'update', cells }
  })
}

type Row = { readonly a: string | null; readonly b: string | null; readonly writtenAt: ReadonlyMap<string, number> }

/** What a cluster has of a row that took these writes: of each column the newest, and nothing from before a deletion. */
function rowOf(writes: readonly Write[]): Row | null {
  const deleted = Math.max(0, ...writes.filter(({ kind }) => kind === 'delete').map(({ at }) => at))
  const alive = writes.filter(({ kind, at }) => kind !== 'delete' && at > deleted)
  const writtenAt = new Map<string, number>()
  const newest = (name: 'a' | 'b') => {
    const write = alive.filter(({ cells }) => name in cells).toSorted((one, other) => other.at - one.at)[0]
    if (write?.cells[name] == null) return null
    writtenAt.set(name, write.at)
    return write.cells[name]
  }
  const row = { a: newest('a'), b: newest('b'), writtenAt }
  return row.a === null && row.b === null && !alive.some(({ kind }) => kind === 'insert') ? null : row
}

function updateOf({ p, c, at, kind, cells }: Write): PartitionUpdate {
  const texts = [p, c, ...Object.values(cells).map((value) => value ?? '')]
  const bytes = Buffer.from(texts.join(''))
  let end = 0
  const slices = texts.map((text) => ({ from: end, to: (end += text.length) }))
  const written = Object.entries(cells).map(([name, value], i): Cell => {
    const index = description.columns.findIndex((one) => one.name === name)
    return { column: index, writtenAt: at, ttl: 0, localTime: 0, tombstone: value === null, pathFrom: -1, pathTo: -1, ...slices[2 + i]! }
  })
  const liveness = kind === 'insert' ? { writtenAt: at, ttl: 0, expiresAt: 0 } : null
  const deletion = kind === 'delete' ? { writtenAt: at, deletedAt: 0 } : null
  const row = { clustering: [slices[1]!], liveness, deletion, cells: written, complexDeletions: [] }
  return { table: description, bytes, from: 0, to: end, key: slices[0]!, deletion: null, staticRow: null, rows: [row], ranges: [] }
}

class PlacedOutput extends RecordingOutput {
  /** Of the log's entry, by commit; null: of none. */
  readonly places = new Map<bigint, number | null>()

  override transaction(start: TransactionStart): void {
    super.transaction(start)
    const [, position] = start.source
    this.places.set(start.commit, position == null ? null : Number(position))
  }
}

interface Yielded {
  readonly offset: CassandraOffset
  /** So many were told by then. */
  readonly changes: number
  readonly cursor: Cursor | null
}

/** Where the next chunk starts. */
interface Cursor {
  readonly from: Json | null
}

const DISPOSABLE = { [Symbol.asyncDispose]: async () => {} }

/** A cluster that is written on while it is read, its log, and a log of Millrace that outlives the source. */
class World {
  readonly random: (below: number) => number
  readonly writes: readonly Write[]
  readonly output = new PlacedOutput()
  /** Of `output.changes`, those of chunks. */
  readonly chunkRows = new Set<number>()
  /** The cluster took so many of the writes. */
  written = 0
  /** Null: the table is read to its end. */
  cursor: Cursor | null = { from: null }
  readonly #context: PluginContext
  #mapped = this.#map()

  constructor(name: string, seed: number) {
    this.random = seeded(seed)
    this.writes = writesOf(this.random)
    this.#context = { mesh: 'test', node: 'shop', dataDir: path.join(root, name), logger: pino({ level: 'silent' }), metric: () => {} }
  }

  #map(): MappedTable {
    return mapCaptured({ description, droppedAt: new Map(), truncatedAt: 0 }, { unrepresentable: 'text', partial: true })
  }

  /** Streams from `durable` until everything is streamed, or until it is killed. */
  async run(durable: CassandraOffset | null, killedAt: number): Promise<readonly Yielded[]> {
    const known = KnownRows.open(this.#context, durable === null)
    const start = durable ?? { logs: { [LOG]: { segment: 1, position: 0 } }, commit: 0n, through: 0 }
    if (durable === null) known.flush(0n, writeOffset(start) as unknown as Json)
    const from = readOffset(known.offset!)
    const source = new CassandraSource(this.#parts(known, start, from))
    const stop = new AbortController()
    this.#chunks(source, stop.signal)
    const yields: Yielded[] = []
    let idle = 0
    for await (const yielded of source.changes(source.start, this.output, stop.signal)) {
      const offset = readOffset(yielded)
      yields.push({ offset, changes: this.output.changes.length, cursor: this.cursor })
      // of the last ones the log may have nothing
      if (yields.length > MAY_BE_LOST && this.random(4) === 0) source.acknowledge(writeOffset(yields.at(-1 - MAY_BE_LOST)!.offset))
      if (offset.logs[LOG]!.position >= killedAt) stop.abort()
      idle = offset.logs[LOG]!.position === ENTRIES && offset.commit === yields.at(-2)?.offset.commit ? idle + 1 : 0
      if (idle === 3 && this.cursor === null) stop.abort()
      // the table is described anew, as when its options were altered
      if (this.random(10) === 0) this.#mapped = this.#map()
    }
    await source[Symbol.asyncDispose]()
    return yields
  }

  #parts(known: KnownRows, start: CassandraOffset, from: CassandraOffset): CassandraSourceParts {
    let read = from.logs[LOG]!.position
    const tail = {
      next: async () => {
        if (read === ENTRIES) return null
        const until = Math.min(ENTRIES, read + 1 + this.random(40))
        const positions = Array.from({ length: until - read }, (_, n) => read + n + 1)
        read = until
        this.written = Math.max(this.written, until)
        const nothing = positions.map(() => 0)
        return { segment: 1, file: 'segment', block: { bytes: Buffer.alloc(0), starts: nothing, ends: nothing, positions } }
      },
      [Symbol.asyncDispose]: async () => {},
    }
    const parts = {
      ...{ context: this.#context, patterns: new TablePatterns(['shop.*']), known, start, from, syncMs: 0, space: null },
      config: { rows: 'written', consistency: 'ONE', pollMs: 1 },
      logs: [{ directory: { path: LOG, list: async () => [] }, tail }],
      client: { raw: async (_: string, text: string, values: readonly Buffer[]) => ({ rows: await this.#select(text, values), next: null }), ...DISPOSABLE },
      decoder: {
        decode: (...[, , , , position]: [Buffer, number, number, string, number]) => ({ updates: [updateOf(this.writes[position - 1]!)], unread: null }),
      },
      tables: {
        ...{ of: () => this.#mapped, byId: () => this.#mapped, current: () => this.#mapped, refresh: async () => {} },
        ...{ isSettling: () => false, settlesBefore: () => false, list: () => [this.#mapped.table] },
      },
    }
    return parts as unknown as CassandraSourceParts
  }

  /** Writes go on while it is asked. */
  async #select(text: string, values: readonly Buffer[]): Promise<readonly Record<string, unknown>[]> {
    const onwards = () => {
      this.written = Math.min(ENTRIES, this.written + this.random(3))
    }
    onwards()
    await new Promise(setImmediate)
    const [partition, ...clusterings] = values.map(String)
    const after = /token\(\S+\) > (-?\d+)/.exec(text)?.[1]
    const found = this.rows().filter(({ p, c, token }) =>
      partition === undefined ? after === undefined || token > BigInt(after) : p === partition && clusterings.includes(c),
    )
    const seen = Buffer.from(String(this.written))
    onwards()
    await new Promise(setImmediate)
    const bytes = (value: string | null) => (value === null ? null : Buffer.from(value))
    return found.map(({ p, c, token, row: { a, b, writtenAt } }) => {
      const times = { w2: writtenAt.get('a'), w3: writtenAt.get('b') }
      const texts = { c0: bytes(p), c1: bytes(c), c2: bytes(a), c3: bytes(b), c4: seen }
      return { ...texts, at: token, ...Object.fromEntries(Object.entries(times).map(([name, time]) => [name, time === undefined ? null : BigInt(time)])) }
    })
  }

  /** As the cluster has them now, in token order. */
  rows() {
    const byKey = Map.groupBy(this.writes.slice(0, this.written), ({ p, c }) => `${p} ${c}`)
    return [...byKey.values()]
      .flatMap((writes) => {
        const [{ p, c }] = writes as [Write, ...Write[]]
        const row = rowOf(writes)
        return row === null ? [] : [{ p, c, token: tokenOf(Buffer.from(p)), row }]
      })
      .sort((one, other) => (one.token === other.token ? one.c.localeCompare(other.c) : one.token < other.token ? -1 : 1))
  }

  /** Chunks of a partition each come into the stream now and then, read while it waits. */
  #chunks(source: CassandraSource, signal: AbortSignal): void {
    const { chunks, changes } = this.output
    const due = () => this.cursor !== null && this.random(10) === 0
    let reading = false
    const estimated = this.cursor === null ? null : source.snapshot.estimate(this.#mapped.table)
    Object.defineProperty(chunks, 'size', { configurable: true, get: () => (reading || due() ? 1 : 0) })
    chunks.emit = () => {
      if (this.cursor === null) return null
      reading = true
      return (async () => {
        await estimated
        const { table } = this.#mapped
        const chunk = await source.snapshot.read(table, this.cursor!.from, { maxRows: 1, maxBytes: 1 }, () => {}, signal)
        const writer = (await this.output.table(table))!
        this.output.start ??= { commit: -1n, committedAt: 0n, source: [null, null, null] }
        const begin = () => {
          this.chunkRows.add(changes.length)
          writer.begin('c', 1)
          writer.after()
        }
        chunk.write(writer, begin, () => writer.end())
        this.cursor = chunk.next === null ? null : { from: chunk.next }
        reading = false
      })()
    }
  }

  /** The log of Millrace has what was told by then, and no more. */
  kill({ changes, cursor }: Yielded): void {
    this.output.changes.length = changes
    this.output.start = null
    for (const one of this.chunkRows) if (one >= changes) this.chunkRows.delete(one)
    this.cursor = cursor
  }

  /** The rows that the told changes lead to, as `a` and `b` by key. */
  replayed(): Record<string, unknown> {
    const rows = new Map<string, Record<string, Value>>()
    for (const { op, key, after } of this.output.changes) {
      const image = (after ?? key)!
      const name = `${String(image.p)} ${String(image.c)}`
      const before = rows.get(name) ?? {}
      if (op === 'd') rows.delete(name)
      else rows.set(name, Object.fromEntries(Object.entries(image).map(([one, value]) => [one, value === UNCHANGED ? before[one]! : value])))
    }
    return Object.fromEntries([...rows].sort(([one], [other]) => one.localeCompare(other)).map(([name, { a, b }]) => [name, { a, b }]))
  }

  /** What the cluster has in the end. */
  expected(): Record<string, unknown> {
    this.written = ENTRIES
    return Object.fromEntries(
      this.rows()
        .map(({ p, c, row: { a, b } }) => [`${p} ${c}`, { a, b }] as const)
        .sort(([one], [other]) => one.localeCompare(other)),
    )
  }
}

test.each([
  ...Array.from({ length: 60 }, (_, n) => n + 1),
  235,
  261,
  362,
  369,
  774,
  843,
  1004,
  1061,
  1245,
  1308,
])('no row is told as it was before its change, and in the end all is as the cluster has it, also after kills (%i)', async (seed) => {
  const world = new World(String(seed), seed)
  let durable: CassandraOffset | null = null
  for (const killedAt of [40, 90]) {
    const yields = await world.run(durable, killedAt)
    const kept = yields[Math.max(0, yields.length - 1 - world.random(MAY_BE_LOST + 1))]!
    durable = kept.offset
    world.kill(kept)
  }
  await world.run(durable, Number.POSITIVE_INFINITY)
  const { changes, places } = world.output
  let told = 0
  for (const [i, { after, commit }] of changes.entries()) {
    const place = places.get(commit) ?? null
    if (world.chunkRows.has(i) || place === null || typeof after?.seen !== 'string') continue
    told++
    expect(Number(after.seen)).toBeGreaterThanOrEqual(place)
  }
  expect(told).toBeGreaterThan(10)
  expect(world.replayed()).toEqual(world.expected())
})
