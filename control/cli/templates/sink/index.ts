import { open, readFile, rename, stat } from 'node:fs/promises'
import path from 'node:path'
import { deserialize, serialize } from 'node:v8'
import {
  type Column,
  definePlugin,
  type Finding,
  type LogPosition,
  MillraceError,
  type Rejection,
  type SinkBatch,
  type SinkConnector,
  Special,
  type StreamTarget,
  type TableSchema,
  type Tuple,
  UNCHANGED,
  type Value,
} from 'millrace'
import { z } from 'zod'

/** The only declaration of the settings: they are checked, completed in editors and printed from here. */
const config = z.strictObject({
  folder: z.string().min(1).describe('The folder in which each stream has a file of its rows.'),
})
type Config = z.infer<typeof config>

/** What the target holds: rows, positions and memo in one file, so that they land together. Values by column id, which outlives names. */
interface State {
  readonly table: TableSchema | null
  readonly rows: ReadonlyMap<string, ReadonlyMap<number, unknown>>
  readonly positions: readonly LogPosition[]
  readonly memo: string | null
}
const NOTHING: State = { table: null, rows: new Map(), positions: [], memo: null }

/** Values of Special are objects of a class, which the file does not keep. */
const pack = (value: Value): unknown => (value instanceof Special ? { special: value.text } : value)
const unpack = (value: unknown): Value =>
  typeof value === 'object' && value !== null && 'special' in value ? new Special(String(value.special)) : (value as Value)

/** Text that is equal exactly when two keys are. */
const nameOf = (key: Tuple) =>
  JSON.stringify(key.map((value) => (value instanceof Uint8Array ? Buffer.from(value).toString('hex') : typeof value === 'bigint' ? String(value) : value)))

/** How values of a column become those of a wider type; null: they cannot without loss. */
function widening(before: Column, now: Column): ((value: unknown) => unknown) | null {
  const same = (value: unknown) => value
  const [from, to] = [before.type, now.type]
  if (JSON.stringify(from) === JSON.stringify(to)) return same
  if (from.kind === 'int32' && to.kind === 'int64') return (value) => (typeof value === 'number' ? BigInt(value) : value)
  if (from.kind === 'float32' && to.kind === 'float64') return same
  if (from.kind === 'decimal' && to.kind === 'decimal' && from.scale === to.scale && from.precision < to.precision) return same
  return null
}

class FileSink implements SinkConnector {
  readonly limits = { rows: 10_000, bytes: 8 * 1024 * 1024, ageMs: 500 }
  readonly #file: string
  readonly #readOnly: boolean
  /** The shape of the rows that are read; null: as they are. */
  #readAs: TableSchema | null = null

  /** @param readOnly for the audit, beside the process that writes: nothing is stored */
  constructor(file: string, readOnly: boolean) {
    this.#file = file
    this.#readOnly = readOnly
  }

  async #load(): Promise<State> {
    try {
      return deserialize(await readFile(this.#file)) as State
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return NOTHING
      throw new MillraceError('sink.unreachable', `${this.#file} cannot be read`, { cause })
    }
  }

  /** All or nothing: a file beside it takes its place. */
  async #store(state: State): Promise<void> {
    const beside = `${this.#file}.next`
    const handle = await open(beside, 'w')
    try {
      await handle.writeFile(serialize(state))
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(beside, this.#file)
  }

  async prepare(table: TableSchema): Promise<void> {
    const state = await this.#load()
    const reshaped = this.#reshaping(state.table ?? table, table)
    if (this.#readOnly) this.#readAs = table
    else if (JSON.stringify(state.table) !== JSON.stringify(table)) {
      await this.#store({ ...state, table, rows: new Map([...state.rows].map(([name, row]) => [name, reshaped(row)])) })
    }
  }

  /** How rows of the shape `before` become rows of `table`. @throws sink.schema_unsupported */
  #reshaping(before: TableSchema, table: TableSchema): (row: ReadonlyMap<number, unknown>) => ReadonlyMap<number, unknown> {
    const refuse = (what: string, fix: string) => new MillraceError('sink.schema_unsupported', `${table.namespace}.${table.name} ${what}`, { fix })
    if (table.key.length === 0) throw refuse('has no key', 'add a primary key, or leave it out with from:')
    const keyIds = (of: TableSchema) => of.key.map((at) => of.columns[at]!.id).join()
    if (keyIds(before) !== keyIds(table)) throw refuse('has another key than before', `remove ${this.#file}`)
    const steps = table.columns.flatMap((now) => {
      const old = before.columns.find(({ id }) => id === now.id)
      if (old === undefined) return []
      const widen = widening(old, now)
      if (widen === null) throw refuse(`has another type of ${now.name}`, `remove ${this.#file}`)
      return [{ id: now.id, widen }]
    })
    return (row) => new Map(steps.map(({ id, widen }) => [id, widen(row.get(id) ?? null)]))
  }

  async committed(): Promise<readonly LogPosition[]> {
    return (await this.#load()).positions
  }

  async apply(batch: SinkBatch, signal: AbortSignal): Promise<readonly Rejection[]> {
    const state = await this.#load()
    const held = (partition: number) => state.positions.find((one) => one.partition === partition)?.offset ?? -1n
    if (batch.positions.length > 0 && batch.positions.every(({ partition, offset }) => held(partition) >= offset)) return []
    const rows = new Map(state.rows)
    const rejections: Rejection[] = []
    /** The delete half of a changed key, whose values the insert half may leave out. */
    let moved: { readonly commit: bigint; readonly ordinal: number; readonly row: ReadonlyMap<number, unknown> | undefined } | null = null
    for (const [index, change] of batch.changes.entries()) {
      if (change.kind === 'truncate') {
        rows.clear()
        continue
      }
      const name = nameOf(change.key!)
      if (change.after === null) {
        moved = { ...change.position, row: rows.get(name) }
        rows.delete(name)
        continue
      }
      const { commit, ordinal } = change.position
      const isMove = moved?.commit === commit && moved.ordinal % 2 === 0 && moved.ordinal + 1 === ordinal
      const base = rows.get(name) ?? (isMove ? moved?.row : undefined)
      if (base === undefined && change.after.includes(UNCHANGED)) {
        rejections.push({ index, reason: 'it leaves columns out, and the target has no row to take them from', missingBase: true })
        continue
      }
      const after = change.after
      rows.set(name, new Map(batch.table.columns.map(({ id }, at) => [id, after[at] === UNCHANGED ? (base?.get(id) ?? null) : pack(after[at]!)])))
    }
    // durable as dead letters before the positions pass them
    if (rejections.length > 0) await batch.onRejected(rejections)
    signal.throwIfAborted()
    const others = state.positions.filter(({ partition }) => !batch.positions.some((one) => one.partition === partition))
    await this.#store({ table: batch.table, rows, positions: [...others, ...batch.positions], memo: batch.memo() })
    return rejections
  }

  async recall(): Promise<string | null> {
    return (await this.#load()).memo
  }

  /** For the audit: rows and positions of one view. */
  async *rows(onView: (positions: readonly LogPosition[]) => void): AsyncGenerator<readonly Tuple[]> {
    const { table, rows, positions } = await this.#load()
    onView(positions)
    if (table === null) return
    const shape = this.#readAs ?? table
    const reshaped = this.#reshaping(table, shape)
    yield Array.from(rows.values(), reshaped).map((row) => shape.columns.map(({ id }) => unpack(row.get(id) ?? null)))
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

export default definePlugin<Config>({
  kind: 'sink',
  name: 'plugin-name',
  summary: 'Keeps each stream as a file of its rows.',
  config,
  async check({ folder }): Promise<readonly Finding[]> {
    const facts = await stat(folder).catch(() => null)
    if (facts?.isDirectory() === true) return [{ level: 'ok', subject: 'folder', message: `${folder} is there` }]
    return [{ level: 'error', subject: 'folder', message: `${folder} is no folder`, fix: `mkdir -p ${folder}` }]
  },
  async open({ folder }, { readOnly }, { namespace, table }: StreamTarget): Promise<SinkConnector> {
    return new FileSink(path.join(folder, `${namespace}.${table}.rows`), readOnly === true)
  },
})
