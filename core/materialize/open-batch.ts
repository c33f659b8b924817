import { invariant } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { records } from '../event/record-batch.ts'
import { type DeadLetter, deadLetterOf } from './dead-letter.ts'
import type { Rejection } from './sink-connector.ts'

interface Piece {
  readonly frame: Buffer
  readonly partition: number
  /** Index of the first change that came out of it. */
  readonly from: number
}

/** Changes gathered for one apply, with the frames that they came from, so that a rejected one can be sent on as it was. */
export class OpenBatch {
  readonly changes: (RowChange | Truncation)[] = []
  /** Records that could not be decoded. */
  readonly malformed: DeadLetter[] = []
  sizeBytes = 0
  /** Milliseconds since epoch of the first record, of any kind; null before. */
  openedAt: number | null = null
  readonly #topic: string
  readonly #pieces: Piece[] = []
  readonly #offsets: bigint[] = []

  constructor(topic: string) {
    this.#topic = topic
  }

  /** The records that follow come from this frame, which nobody else writes to. */
  begin(frame: Buffer, partition: number): void {
    this.#pieces.push({ frame, partition, from: this.changes.length })
  }

  add(change: RowChange | Truncation, offset: bigint): void {
    this.changes.push(change)
    this.#offsets.push(offset)
  }

  rejected(rejections: readonly Rejection[]): DeadLetter[] {
    return rejections.map(({ index, reason }) => {
      const piece = this.#pieces.findLast((candidate) => candidate.from <= index)
      const offset = this.#offsets[index]
      invariant(piece !== undefined && offset !== undefined, `the sink rejected change ${index} of ${this.changes.length}`)
      for (const record of records(piece.frame)) {
        if (record.offset === offset) return deadLetterOf(piece.frame, record, this.#topic, piece.partition, 'record.rejected', reason)
      }
      return invariant(false, `no record with offset ${offset} in its frame`) as never
    })
  }
}
