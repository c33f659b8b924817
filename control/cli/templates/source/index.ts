import { type FileHandle, open, stat } from 'node:fs/promises'
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
        throw new MillraceError('source.protocol', `the line at byte ${at + from} is no JSON`, { cause, fix: 'correct the journal' })
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
    throw new MillraceError('source.unprepared', `${path} cannot be read`, { cause, fix: 'make the journal, or correct the setting file' })
  }
}

class JournalSource implements SourceConnector {
  readonly start: SourceOffset
  readonly #file: FileHandle
  /** How far the stream is: whatever lies before it is written. */
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
      // the view is what the stream has written so far, which waits until the chunk is in its place
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
    sees: (fence: unknown, commit: bigint) => BigInt(fence as number) >= commit,
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
  name: 'plugin-name',
  summary: 'Captures a journal: a file to which a program appends its changes.',
  config,
  sourceFields: [],
  async check({ file }): Promise<readonly Finding[]> {
    const facts = await stat(file).catch(() => null)
    if (facts !== null) return [{ level: 'ok', subject: 'journal', message: `${file} has ${facts.size} bytes` }]
    return [{ level: 'error', subject: 'journal', message: `${file} is not there`, fix: 'make it, or correct the setting file' }]
  },
  async open({ file: path }, context, resume): Promise<SourceConnector> {
    const file = await openJournal(path)
    const at = resume === null ? await endOf(file) : Number(resume.at)
    if ((await file.stat()).size >= at) return new JournalSource(file, at)
    await file.close()
    throw new MillraceError('source.history_lost', `${path} is shorter than what was captured of it`, {
      fix: `millrace run FILE --resnapshot ${context.node}`,
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
