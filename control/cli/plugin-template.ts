/** What `millrace new` writes: the source that docs/how-to/write-a-source.md explains, and a sink. NAME stands for the plugin's name. */
import { existsSync, readFileSync } from 'node:fs'

export type PluginFiles = Readonly<Record<string, string>>

/** The files of a new plugin, by path. */
export function pluginFiles(kind: 'source' | 'sink', name: string): PluginFiles {
  const own = kind === 'source' ? SOURCE : SINK
  const files = { 'package.json': packageJson(name), 'tsconfig.json': TSCONFIG, '.gitignore': GITIGNORE, ...own }
  return Object.fromEntries(Object.entries(files).map(([path, text]) => [path, text.replaceAll('NAME', name)]))
}

interface PackageJson {
  readonly version: string
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
}

/** With the versions that this Millrace is made with. */
function packageJson(name: string): string {
  const ours = JSON.parse(readFileSync(packageFile(), 'utf8')) as PackageJson
  const dev = (names: readonly string[]) => Object.fromEntries(names.map((one) => [one, ours.devDependencies[one]]))
  const made = {
    name: `millrace-plugin-${name}`,
    version: '0.1.0',
    type: 'module',
    exports: './dist/index.js',
    files: ['dist'],
    scripts: { test: 'vitest run', start: 'millrace run mesh.yaml', build: 'tsc -p .', prepack: 'tsc -p .' },
    dependencies: { millrace: `^${ours.version}`, zod: ours.dependencies.zod },
    devDependencies: dev(['@types/node', 'fast-check', 'typescript', 'vitest']),
  }
  return `${JSON.stringify(made, null, 2)}\n`
}

/** In a clone above control/, in the package above dist/. */
function packageFile(): URL {
  const above = ['../../package.json', '../../../package.json'].map((up) => new URL(up, import.meta.url))
  return above.find((file) => existsSync(file))!
}

const GITIGNORE = `node_modules
dist
.millrace
`

const TSCONFIG = `${JSON.stringify(
  {
    compilerOptions: {
      target: 'es2024',
      lib: ['es2024', 'esnext.disposable', 'esnext.iterator'],
      module: 'nodenext',
      types: ['node'],
      strict: true,
      noUncheckedIndexedAccess: true,
      exactOptionalPropertyTypes: true,
      erasableSyntaxOnly: true,
      verbatimModuleSyntax: true,
      skipLibCheck: true,
      declaration: true,
      outDir: 'dist',
    },
    include: ['index.ts'],
  },
  null,
  2,
)}\n`

const README_END = `
    npm install
    npm test                                 the contract suite of Millrace
    npx millrace check mesh.yaml             settings and preflight
    npm start                                the trial mesh; Ctrl-C ends it

index.test.ts is the suite's driver: it says how the suite changes a SIDE of its own, and what it can do. When it is green, Millrace's promises hold for the
plugin: nothing lost, nothing doubled, resumable at any kill.

A mesh takes it by path (plugin: ./index.ts, or the folder), or from npm: npm run build and npm publish, then npm install millrace-plugin-NAME beside the mesh
file, and kind: NAME finds it.
`

const SOURCE_MESH = `# The plugin at work, with an embedded log and a search index: npx millrace run mesh.yaml
mesh: NAME-trial
dataDir: ./.millrace
sources:
  trial:
    kind: NAME
    plugin: ./index.ts
    file: ./journal.ndjson
sinks:
  search:
    kind: search
    from: [trial]
`

const JOURNAL = `[{"table":"items","op":"t"}]
[{"table":"items","op":"c","row":{"id":1,"name":"lamp","quantity":3,"body":null}},{"table":"items","op":"c","row":{"id":2,"name":"chair","quantity":1,"body":null}}]
[{"table":"items","op":"u","row":{"id":1,"name":"lamp","quantity":2,"body":"one is sold"}}]
`

const SINK_MESH = `# The plugin at work, with an embedded log and lines of a file: npx millrace run mesh.yaml
mesh: NAME-trial
dataDir: ./.millrace
sources:
  trial:
    kind: files
    directory: ./input
    tables:
      - files: '{table}.ndjson'
        format: ndjson
        columns: { id: int64, name: string, quantity: int32 }
        key: [id]
sinks:
  target:
    kind: NAME
    plugin: ./index.ts
    from: [trial]
    folder: ./rows
`

const ITEMS = `{"id":1,"name":"lamp","quantity":3}
{"id":2,"name":"chair","quantity":1}
`

const SOURCE_CODE = `import { type FileHandle, open, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type CaptureOutput,
  type ChangeWriter,
  type Column,
  definePlugin,
  type Finding,
  type Json,
  MillraceError,
  type SnapshotChunk,
  type SourceConnector,
  type SourceOffset,
  type SourceReader,
  type TableSchema,
} from 'millrace'
import { z } from 'zod'

/** The only declaration of the settings: they are checked, completed in editors and printed from here. */
const config = z.strictObject({
  file: z.string().min(1).describe('The journal, to which a program appends one transaction a line.'),
})
type Config = z.infer<typeof config>

/** A line is a transaction: an array of changes. t makes a table; d needs no more of the row than its id. */
interface Change {
  readonly table: string
  readonly op: 't' | 'c' | 'u' | 'd'
  readonly row: Row
}
interface Row {
  readonly id: number
  readonly name: string | null
  readonly quantity: number | null
  readonly body: string | null
}
interface Transaction {
  readonly changes: readonly Change[]
  /** The byte after it: where the next one begins, and what its changes are known by. */
  readonly end: number
}

const column = (name: keyof Row, id: number, kind: 'int64' | 'int32' | 'string'): Column => ({
  name,
  id,
  type: { kind },
  sourceType: kind,
  nullable: name !== 'id',
  mayBeUnchanged: false,
  maybeSpecial: false,
})
const columns = [column('id', 1, 'int64'), column('name', 2, 'string'), column('quantity', 3, 'int32'), column('body', 4, 'string')]
const describeTable = (name: string): TableSchema => ({ namespace: 'journal', name, columns, key: [0] })

function writeRow(writer: ChangeWriter, row: Row): void {
  writer.long(row.id)
  if (row.name === null) writer.null()
  else writer.string(row.name)
  if (row.quantity === null) writer.null()
  else writer.int(row.quantity)
  if (row.body === null) writer.null()
  else writer.string(row.body)
}

/** The complete transactions from a byte on, about 64 KB at a time; empty at the end of the journal. */
async function transactionsFrom(file: FileHandle, at: number): Promise<readonly Transaction[]> {
  for (let most = 64 * 1024; ; most *= 2) {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(most), 0, most, at)
    const found: Transaction[] = []
    let from = 0
    for (let to = buffer.indexOf(10); to >= 0 && to < bytesRead; to = buffer.indexOf(10, from)) {
      try {
        found.push({ changes: JSON.parse(buffer.toString('utf8', from, to)) as Change[], end: at + to + 1 })
      } catch (cause) {
        throw new MillraceError('source.protocol', 'the line at byte ' + (at + from) + ' is no JSON', { cause, fix: 'correct the journal' })
      }
      from = to + 1
    }
    if (found.length > 0 || bytesRead < most) return found
  }
}

/** All transactions before a byte. */
async function* transactionsUpTo(file: FileHandle, end: number): AsyncGenerator<Transaction> {
  for (let at = 0; at < end; ) {
    const read = await transactionsFrom(file, at)
    if (read.length === 0) return
    for (const transaction of read) {
      if (transaction.end > end) return
      yield transaction
      at = transaction.end
    }
  }
}

/** Where the complete transactions end now. */
async function endOf(file: FileHandle): Promise<number> {
  let end = 0
  for await (const transaction of transactionsUpTo(file, Number.POSITIVE_INFINITY)) end = transaction.end
  return end
}

async function tablesUpTo(file: FileHandle, end: number): Promise<readonly TableSchema[]> {
  const names = new Set<string>()
  for await (const { changes } of transactionsUpTo(file, end)) for (const { table } of changes) names.add(table)
  return [...names].map(describeTable)
}

/** The rows of a table as they are after the transactions before a byte, in key order. */
async function rowsUpTo(file: FileHandle, end: number, table: string): Promise<readonly Row[]> {
  const rows = new Map<number, Row>()
  for await (const { changes } of transactionsUpTo(file, end)) {
    for (const change of changes) {
      if (change.table !== table || change.op === 't') continue
      if (change.op === 'd') rows.delete(change.row.id)
      else rows.set(change.row.id, change.row)
    }
  }
  return [...rows.values()].sort((a, b) => a.id - b.id)
}

async function openJournal(path: string): Promise<FileHandle> {
  try {
    return await open(path)
  } catch (cause) {
    throw new MillraceError('source.unprepared', path + ' cannot be read', { cause, fix: 'make the journal, or correct the setting file' })
  }
}

class JournalSource implements SourceConnector {
  readonly start: SourceOffset
  readonly #file: FileHandle
  /** How far the stream is: whatever lies before it is written, and nothing else. */
  #at: number

  constructor(file: FileHandle, at: number) {
    this.#file = file
    this.#at = at
    this.start = { at }
  }

  async tables(): Promise<readonly TableSchema[]> {
    return tablesUpTo(this.#file, Number.POSITIVE_INFINITY)
  }

  async whyAbsent(): Promise<string | null> {
    return null
  }

  /** Its tables never change. */
  async isRewritten(): Promise<boolean> {
    return false
  }

  async *changes(from: SourceOffset, output: CaptureOutput, signal: AbortSignal): AsyncGenerator<SourceOffset> {
    this.#at = Number(from.at)
    while (!signal.aborted) {
      const transactions = await transactionsFrom(this.#file, this.#at)
      for (const transaction of transactions) {
        if (signal.aborted) return
        await this.#write(transaction, output)
      }
      yield { at: this.#at }
      if (transactions.length > 0) continue
      // nothing to stream: chunks of a snapshot may take their place now
      await output.chunks.emit(() => true)
      await delay(20, undefined, { signal }).catch(() => {})
    }
  }

  async #write({ changes, end }: Transaction, output: CaptureOutput): Promise<void> {
    const writers = new Map<string, ChangeWriter | null>()
    for (const { table } of changes) if (!writers.has(table)) writers.set(table, await output.table(describeTable(table)))
    // chunks come between two transactions; from here on nothing is awaited, so none can come between these changes
    for (let waiting = output.chunks.emit(() => true); waiting !== null; waiting = output.chunks.emit(() => true)) await waiting
    output.transaction({ commit: BigInt(end), committedAt: BigInt(Date.now()) * 1000n, source: [] })
    changes.forEach(({ table, op, row }, n) => {
      const writer = writers.get(table)
      if (op === 't') return
      if (writer == null) output.skip({ namespace: 'journal', name: table })
      else if (writer.begin(op, 2 * n + 1)) {
        if (op === 'd') {
          writer.key()
          writer.long(row.id)
        } else {
          writer.after()
          writeRow(writer, row)
        }
        writer.end()
      }
    })
    this.#at = end
  }

  /** The journal keeps everything. */
  acknowledge(): void {}

  readonly snapshot = {
    estimate: async () => null,
    read: async (table: TableSchema, cursor: Json | null, limits: { maxRows: number }, onView: (fence: unknown) => void): Promise<SnapshotChunk> => {
      // the view is what the stream has written so far; it waits until the chunk is in its place
      const view = this.#at
      onView(view)
      const rows = (await rowsUpTo(this.#file, view, table.name)).filter(({ id }) => cursor === null || id > Number(cursor))
      const chunk = rows.slice(0, limits.maxRows)
      return {
        rows: chunk.length,
        next: chunk.length < rows.length ? chunk.at(-1)!.id : null,
        fence: view,
        readAt: BigInt(Date.now()) * 1000n,
        table,
        write(writer, beginRow, endRow) {
          for (const row of chunk) {
            beginRow()
            writeRow(writer, row)
            endRow()
          }
        },
      }
    },
  }

  async lag(): Promise<{ readonly retainedBytes: number; readonly behindBytes: number }> {
    return { retainedBytes: 0, behindBytes: (await this.#file.stat()).size - this.#at }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close()
  }
}

export default definePlugin<Config>({
  kind: 'source',
  name: 'NAME',
  summary: 'Captures a journal: a file to which a program appends its changes.',
  config,
  sourceFields: [],
  async check({ file }): Promise<readonly Finding[]> {
    const facts = await stat(file).catch(() => null)
    if (facts !== null) return [{ level: 'ok', subject: 'journal', message: file + ' has ' + facts.size + ' bytes' }]
    return [{ level: 'error', subject: 'journal', message: file + ' is not there', fix: 'make it, or correct the setting file' }]
  },
  async open({ file: path }, context, resume): Promise<SourceConnector> {
    const file = await openJournal(path)
    const at = resume === null ? await endOf(file) : Number(resume.at)
    if ((await file.stat()).size >= at) return new JournalSource(file, at)
    await file.close()
    throw new MillraceError('source.history_lost', path + ' is shorter than what was captured of it', {
      fix: 'millrace run FILE --resnapshot ' + context.node,
    })
  },
  /** For the audit: beside a running capture, whole tables in one view. */
  async openReader({ file: path }): Promise<SourceReader> {
    const file = await openJournal(path)
    return {
      tables: () => tablesUpTo(file, Number.POSITIVE_INFINITY),
      async scan(table, openTarget) {
        const view = await endOf(file)
        const { writer, beginRow, endRow } = openTarget(table)
        for (const row of await rowsUpTo(file, view, table.name)) {
          beginRow()
          writeRow(writer, row)
          endRow()
        }
        return BigInt(view) + 1n
      },
      reached: (offset, commit) => BigInt(Number(offset.at)) + 1n >= commit,
      async [Symbol.asyncDispose]() {
        await file.close()
      },
    }
  },
})
`

const SOURCE_TEST = String.raw`import { appendFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type Item, type ProvisionedSource, sourceContract } from 'millrace/testing'
import plugin from './index.ts'

const EXTREMES: readonly Item[] = [
  { id: 1, name: '', quantity: 2147483647, body: 'ünïcödé 🜚' },
  { id: 2, name: 'one\ntwo', quantity: -2147483648, body: null },
  { id: Number.MAX_SAFE_INTEGER, name: null, quantity: null, body: 'x'.repeat(100_000) },
]

/** A journal of its own for each test, and how the suite changes it: as the program would that writes it. */
async function provision(): Promise<ProvisionedSource> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'journal-'))
  const file = path.join(dir, 'journal.ndjson')
  writeFileSync(file, '')
  const rows = new Map<string, Item>()
  const append = (changes: readonly unknown[]) => appendFileSync(file, JSON.stringify(changes) + '\n')
  return {
    plugin,
    settings: { file },
    namespace: 'journal',
    /** A table with the extremes of each column. */
    types: {
      rows: EXTREMES.map(({ id, name, quantity, body }) => [BigInt(id), name, quantity, body]),
      create: async (table) => append([{ table, op: 't' }]),
      load: async (table) => append(EXTREMES.map((row) => ({ table, op: 'c', row }))),
    },
    wrong: [{ what: 'no journal', settings: { file: path.join(dir, 'nowhere') }, code: 'source.unprepared' }],
    createTable: async (table) => append([{ table, op: 't' }]),
    async transact(writes) {
      append(
        writes.map((write) => {
          if (write.op === 'truncate') throw new Error('not among the capabilities below')
          const { table } = write
          const id = write.op === 'insert' ? write.row.id : write.id
          const key = table + '/' + id
          if (write.op === 'delete') return { table, op: 'd', row: { id } }
          const row = write.op === 'insert' ? write.row : { ...rows.get(key)!, ...write.set }
          rows.set(key, row)
          return { table, op: write.op === 'insert' ? 'c' : 'u', row }
        }),
      )
    },
    /** There is no server. */
    restart: async () => {},
    loseHistory: async () => truncateSync(file, 0),
    dispose: async () => rmSync(dir, { recursive: true }),
  }
}

sourceContract('NAME', provision, { transactions: true, keepsNothing: true, fixedColumns: true })
`

const SINK_CODE = `import { open, readFile, rename, stat } from 'node:fs/promises'
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

  constructor(file: string) {
    this.#file = file
  }

  async #load(): Promise<State> {
    try {
      return deserialize(await readFile(this.#file)) as State
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return NOTHING
      throw new MillraceError('sink.unreachable', this.#file + ' cannot be read', { cause })
    }
  }

  /** All or nothing: a file beside it takes its place. */
  async #store(state: State): Promise<void> {
    const beside = this.#file + '.next'
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
    const refuse = (what: string, fix: string) => new MillraceError('sink.schema_unsupported', table.namespace + '.' + table.name + ' ' + what, { fix })
    if (table.key.length === 0) throw refuse('has no key', 'add a primary key, or leave it out with from:')
    const state = await this.#load()
    if (JSON.stringify(state.table) === JSON.stringify(table)) return
    if (state.table === null) return this.#store({ ...state, table })
    const before = state.table
    const keyIds = (of: TableSchema) => of.key.map((at) => of.columns[at]!.id).join()
    if (keyIds(before) !== keyIds(table)) throw refuse('has another key than before', 'remove ' + this.#file)
    const steps = table.columns.flatMap((now) => {
      const old = before.columns.find(({ id }) => id === now.id)
      if (old === undefined) return []
      const widen = widening(old, now)
      if (widen === null) throw refuse('has another type of ' + now.name, 'remove ' + this.#file)
      return [{ id: now.id, widen }]
    })
    const reshaped = (row: ReadonlyMap<number, unknown>) => new Map(steps.map(({ id, widen }) => [id, widen(row.get(id) ?? null)]))
    await this.#store({ ...state, table, rows: new Map([...state.rows].map(([name, row]) => [name, reshaped(row)])) })
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
    if (table !== null) yield [...rows.values()].map((row) => table.columns.map(({ id }) => unpack(row.get(id) ?? null)))
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

export default definePlugin<Config>({
  kind: 'sink',
  name: 'NAME',
  summary: 'Keeps each stream as a file of its rows.',
  config,
  async check({ folder }): Promise<readonly Finding[]> {
    const facts = await stat(folder).catch(() => null)
    if (facts?.isDirectory() === true) return [{ level: 'ok', subject: 'folder', message: folder + ' is there' }]
    return [{ level: 'error', subject: 'folder', message: folder + ' is no folder', fix: 'mkdir -p ' + folder }]
  },
  async open({ folder }, _context, { namespace, table }: StreamTarget): Promise<SinkConnector> {
    return new FileSink(path.join(folder, namespace + '.' + table + '.rows'))
  },
})
`

const SINK_TEST = `import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { PluginContext } from 'millrace'
import { sinkContract } from 'millrace/testing'
import plugin from './index.ts'

/** A target of its own for each test. */
sinkContract(
  'NAME',
  async (table, topic) => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'rows-'))
    const context = { mesh: 'test', node: 'target', dataDir: folder, metric: () => {} } as unknown as PluginContext
    return {
      open: async () => {
        if (plugin.kind !== 'sink') throw new Error('it is a sink')
        return plugin.open({ folder }, context, { topic, namespace: table.namespace, table: table.name })
      },
      dispose: async () => rmSync(folder, { recursive: true }),
    }
  },
  { secondWriter: null },
)
`

const SOURCE: PluginFiles = {
  'index.ts': SOURCE_CODE,
  'index.test.ts': SOURCE_TEST,
  'mesh.yaml': SOURCE_MESH,
  'journal.ndjson': JOURNAL,
  'README.md': `# NAME: a Millrace source

It captures a journal, a file to which a program appends its changes. Put what you want to capture in its place: docs/how-to/write-a-source.md of Millrace
explains each part of index.ts.
${README_END.replace('SIDE', 'source')}`,
}

const SINK: PluginFiles = {
  'index.ts': SINK_CODE,
  'index.test.ts': SINK_TEST,
  'mesh.yaml': SINK_MESH,
  'input/items.ndjson': ITEMS,
  'rows/.gitkeep': '',
  'README.md': `# NAME: a Millrace sink

It keeps each stream as a file of its rows, positions and memo, replaced as a whole. Put what you want to fill in its place.
${README_END.replace('SIDE', 'target')}`,
}
