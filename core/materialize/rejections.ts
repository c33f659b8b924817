import { MillraceError } from '../errors.ts'
import { comparePositions, type Position } from '../event/position.ts'
import { SNAPSHOT_ENTRY, type SnapshotProgress } from '../event/snapshot-progress.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { Log } from '../log/log.ts'
import type { DeadLetterBox } from './dead-letter.ts'
import type { TakenChanges } from './open-batch.ts'
import type { Rejection } from './sink-connector.ts'

/** What a sink rejected of one batch, however often the batch is tried: each becomes a dead letter once, or is superseded by the snapshot. */
export class Rejections {
  readonly #stream: { readonly log: Log; readonly topic: string }
  readonly #letters: DeadLetterBox | null
  readonly #table: TableSchema
  readonly #run: TakenChanges
  readonly #retrying: <T>(work: () => Promise<T>) => Promise<T>
  readonly #announced = new Set<number>()
  readonly #superseded = new Set<number>()

  constructor(
    stream: { readonly log: Log; readonly topic: string },
    letters: DeadLetterBox | null,
    table: TableSchema,
    run: TakenChanges,
    retrying: <T>(work: () => Promise<T>) => Promise<T>,
  ) {
    this.#stream = stream
    this.#letters = letters
    this.#table = table
    this.#run = run
    this.#retrying = retrying
  }

  get count(): number {
    return this.#announced.size
  }

  /** Indexes of those that are dead letters. */
  get lost(): readonly number[] {
    return [...this.#announced].filter((index) => !this.#superseded.has(index))
  }

  /** Indexes of those whose row the snapshot brings. */
  get superseded(): readonly number[] {
    return [...this.#superseded]
  }

  /** Durable when it resolves. @throws record.rejected without dead letters */
  async take(rejections: readonly Rejection[]): Promise<void> {
    const fresh = rejections.filter(({ index }) => !this.#announced.has(index))
    if (fresh.length === 0) return
    const isBaseMissing = fresh.some(({ missingBase }) => missingBase === true)
    const brought = isBaseMissing ? await this.#retrying(() => snapshotEnd(this.#stream.log, this.#stream.topic, this.#table)) : null
    for (const { index, missingBase } of fresh) {
      if (missingBase === true && brought !== null && isCovered(brought, this.#run.changes[index]!.position)) this.#superseded.add(index)
    }
    const lost = fresh.filter(({ index }) => !this.#superseded.has(index))
    if (lost.length > 0) {
      if (this.#letters === null) throw rejectedError(this.#table, this.#stream.topic, lost)
      await this.#letters.send(this.#run.letters(lost))
    }
    for (const { index } of fresh) this.#announced.add(index)
  }
}

/** Up to where the snapshot of a stream's table brings whole rows: `all` while the whole table is read, null when it never was. */
async function snapshotEnd(log: Log, topic: string, table: TableSchema): Promise<Position | 'all' | null> {
  const source = topic.slice(0, topic.indexOf('.'))
  const entry = (await log.progress(source)).get(SNAPSHOT_ENTRY + tableId(table)) as SnapshotProgress | undefined
  if (entry === undefined) return null
  // I3: a part brings no row of the others, and nothing tells which part a change is of
  if (!entry.done && entry.part !== true) return 'all'
  return entry.at === undefined ? null : { commit: BigInt(entry.at.commit), ordinal: entry.at.ordinal }
}

/** An update that came before the chunk with its row: the row has come since, or will. */
function isCovered(end: Position | 'all', position: Position): boolean {
  return end === 'all' || comparePositions(position, end) <= 0
}

function rejectedError(table: TableSchema, topic: string, rejections: readonly Rejection[]): MillraceError {
  const more = rejections.length === 1 ? '' : ` (and ${rejections.length - 1} more)`
  return new MillraceError('record.rejected', `the sink rejects a change of ${tableId(table)} on ${topic}: ${rejections[0]!.reason}${more}`, {
    fix: 'correct the row in the source, or set onRejected: dead-letter on the sink',
  })
}
