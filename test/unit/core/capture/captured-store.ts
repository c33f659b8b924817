import { expect } from 'vitest'
import { capture } from '../../../../core/capture/capture.ts'
import type { CaptureOutput, ChangeWriter, SourceConnector } from '../../../../core/capture/source-connector.ts'
import { MillraceError } from '../../../../core/errors.ts'
import type { Json, SourceOffset } from '../../../../core/event/offset.ts'
import { records } from '../../../../core/event/record-batch.ts'
import type { ColumnType, TableSchema } from '../../../../core/event/table-schema.ts'
import type { Log, LogWriter } from '../../../../core/log/log.ts'
import type { SchemaRegistry } from '../../../../core/schema/registry.ts'

export const INT: ColumnType = { kind: 'int32' }
export const TEXT: ColumnType = { kind: 'string' }

export function table(name: string, type: ColumnType): TableSchema {
  const column = (id: number, name: string, type: ColumnType) => {
    return { name, id, type, sourceType: `of ${type.kind}`, nullable: id > 1, mayBeUnchanged: false, maybeSpecial: false }
  }
  return { namespace: 'public', name, columns: [column(1, 'id', INT), column(2, 'value', type)], key: [0] }
}

/** Refuses every shape but that with whole numbers. */
const registry = {
  async register(subject: string, schema: string) {
    if (subject.includes('.t-') && schema.includes('of string')) throw new MillraceError('schema.incompatible', 'int was promised', { fix: 'undo it' })
    return 1
  },
} as unknown as SchemaRegistry

export type Script = (output: CaptureOutput, transaction: () => void) => AsyncGenerator<void>

/** Durable memory of a log. */
export class Store {
  readonly progress = new Map<string, Json>()
  readonly counts = new Map<string, number>()
  mode: 'initial' | 'never' = 'initial'

  async run(script: Script, other: Partial<SourceConnector> = {}, tooLarge: string | null = null): Promise<'stopped' | 'parked'> {
    const stop = new AbortController()
    const writer: LogWriter = {
      progress: new Map(this.progress),
      append: async (batch) => {
        if (batch.frames.some(({ topic }) => topic === tooLarge)) {
          throw new MillraceError('record.too_large', 'a batch of 2 MB', { topic: tooLarge!, fix: 'raise it' })
        }
        for (const frame of batch.frames) {
          const bytes = Buffer.from(frame.buffer.subarray(0, frame.end))
          this.counts.set(frame.topic, (this.counts.get(frame.topic) ?? 0) + [...records(bytes)].length)
        }
        this.keep(batch.progress)
      },
      async [Symbol.asyncDispose]() {},
    }
    const connector: SourceConnector = {
      start: { at: 0 },
      snapshot: {
        estimate: async () => 1,
        async read(of, _cursor, _limits, onView) {
          onView(null)
          const write = (to: ChangeWriter, beginRow: () => void, endRow: () => void) => {
            beginRow()
            to.int(1)
            to.int(10)
            endRow()
          }
          return { rows: 1, next: null, fence: null, readAt: 5n, table: of, write }
        },
        sees: () => true,
      },
      tables: async () => [table('t', INT), table('u', INT)],
      whyAbsent: async () => null,
      isRewritten: async () => true,
      async *changes(from: SourceOffset, output: CaptureOutput) {
        let at = from.at as number
        for await (const _ of script(output, () => output.transaction({ commit: BigInt(++at), committedAt: 1n, source: [] }))) yield { at }
      },
      acknowledge() {},
      lag: async () => ({ retainedBytes: 0, behindBytes: 0 }),
      async [Symbol.asyncDispose]() {},
      ...other,
    }
    return await capture({
      node: 'n',
      connector,
      plugin: { name: 'fake', version: '0', sourceFields: [] },
      database: 'db',
      log: { kind: 'embedded', ensureTopics: async () => {}, openWriter: async () => ({ ...writer, progress: new Map(this.progress) }) } as unknown as Log,
      writer,
      registry,
      topics: { partitions: 1, retentionMs: null, compacted: false, replicationFactor: null },
      snapshot: { mode: this.mode, chunkRows: 2, chunkBytes: 1000, parallel: 2 },
      onStatus: () => {},
      signal: stop.signal,
    })
  }

  keep(progress: ReadonlyMap<string, Json | null>): void {
    for (const [name, entry] of progress) {
      if (entry === null) this.progress.delete(name)
      else this.progress.set(name, structuredClone(entry))
    }
  }
}

export async function insert(output: CaptureOutput, shape: TableSchema, ordinal: number): Promise<boolean> {
  const writer = await output.table(shape)
  if (writer === null) {
    output.skip(shape)
    return false
  }
  expect(writer.begin('c', ordinal)).toBe(true)
  writer.after()
  writer.int(2)
  writer.int(20)
  writer.end()
  return true
}

/** Writes the chunks that wait: both tables have one row. */
export async function read(output: CaptureOutput, tables: number): Promise<void> {
  while (output.chunks.size < tables) await new Promise((resolve) => setImmediate(resolve))
  await output.chunks.emit(() => true)
}

/** A store whose table t is parked after one row, with two changes left out. */
export async function parkedStore(): Promise<Store> {
  const store = new Store()
  await store.run(async function* (output, transaction) {
    await read(output, 2)
    yield
    transaction()
    expect(await insert(output, table('t', INT), 1)).toBe(true)
    yield
    transaction()
    const version = output.tablesVersion
    expect(await insert(output, table('t', TEXT), 1)).toBe(false)
    expect(output.tablesVersion).toBeGreaterThan(version)
    expect(await insert(output, table('u', INT), 3)).toBe(true)
    // parked stays parked, whatever its shape
    expect(await insert(output, table('t', INT), 5)).toBe(false)
    yield
  })
  return store
}
