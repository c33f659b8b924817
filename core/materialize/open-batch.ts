import { invariant } from '../errors.ts'
import type { RowChange, Truncation } from '../event/change-event.ts'
import { comparePositions, type Position } from '../event/position.ts'
import { type FrameRecord, records } from '../event/record-batch.ts'
import { hashBytes, hashHigh, hashLow } from '../event/row-hash.ts'
import { contentFrom, WindowLedger, windowOf } from '../event/window-ledger.ts'
import type { LogPosition } from '../log/log.ts'
import { type DeadLetter, deadLetterOf } from './dead-letter.ts'
import type { Rejection } from './sink-connector.ts'

type Change = RowChange | Truncation

/** A batch spans few windows, and what it counts is not kept: none is rolled up. */
const EVERY_WINDOW = Number.POSITIVE_INFINITY

/** Hashes of records' content, for the audit: one after the other, high lane and low lane. */
type Hashes = readonly number[]

/** A frame, for as long as something that came out of it waits. */
interface Piece {
  readonly frame: Buffer
  readonly partition: number
  readonly baseOffset: bigint
  bytes: number
  waiting: number
  ended: boolean
}

/** Changes taken out of the open batch, in the order in which they are applied, and where each came from. */
export class TakenChanges {
  readonly changes: Change[]
  readonly #topic: string
  readonly #pieces: readonly Piece[]
  readonly #deltas: readonly number[]
  readonly #hashes: Hashes

  constructor(topic: string, changes: Change[], from: { readonly pieces: readonly Piece[]; readonly deltas: readonly number[]; readonly hashes: Hashes }) {
    this.#topic = topic
    this.changes = changes
    this.#pieces = from.pieces
    this.#deltas = from.deltas
    this.#hashes = from.hashes
  }

  /** Its changes by window, or some of them: each counted as the record that it came from. Tombstones never count: their deletes do, at capture. */
  windows(indexes: Iterable<number> = this.changes.keys()): WindowLedger {
    const ledger = new WindowLedger(EVERY_WINDOW)
    let at = -1n
    let window = 0
    for (const i of indexes) {
      const change = this.changes[i]!
      if (change.kind === 'row' && change.isTombstone === true) continue
      if (change.committedAt !== at) {
        at = change.committedAt
        window = windowOf(at)
      }
      const op = change.kind === 'truncate' ? 't' : change.op
      ledger.tally(window).addHash(op.charCodeAt(0), this.#hashes[2 * i]!, this.#hashes[2 * i + 1]!)
    }
    return ledger
  }

  /** Calls `visit` with partition and offset of each change from `from` on. */
  places(from: number, visit: (partition: number, offset: bigint) => void): void {
    for (let i = from; i < this.changes.length; i++) visit(this.#pieces[i]!.partition, offsetOf(this.#pieces[i]!, this.#deltas[i]!))
  }

  slice(from: number, to: number): TakenChanges {
    if (from === 0 && to === this.changes.length) return this
    const [pieces, deltas, hashes] = [this.#pieces.slice(from, to), this.#deltas.slice(from, to), this.#hashes.slice(2 * from, 2 * to)]
    return new TakenChanges(this.#topic, this.changes.slice(from, to), { pieces, deltas, hashes })
  }

  letters(rejections: readonly Rejection[]): DeadLetter[] {
    return rejections.map(({ index, reason }) => {
      const piece = this.#pieces[index]
      invariant(piece !== undefined, `the sink rejected change ${index} of ${this.changes.length}`)
      const offset = offsetOf(piece, this.#deltas[index]!)
      for (const record of records(piece.frame)) {
        if (record.offset === offset) return deadLetterOf(piece.frame, record, this.#topic, piece.partition, 'record.rejected', reason)
      }
      return invariant(false, `no record with offset ${offset} in its frame`) as never
    })
  }

  /** These need their frames no longer. @returns bytes that nothing needs now */
  release(): number {
    let freed = 0
    for (const piece of this.#pieces) freed += leave(piece)
    return freed
  }
}

/** What was read and is not applied: changes with the frames that they came from, so that a rejected one can be sent on as it was. */
export class OpenBatch {
  /** Bytes of the frames that are held. */
  sizeBytes = 0
  /** Of the first record, of any kind, by `performance.now()`; null before. */
  openedAt: number | null = null
  readonly #topic: string
  #piece: Piece | null = null
  readonly #held = new Set<Piece>()
  #changes: Change[] = []
  #pieces: Piece[] = []
  #deltas: number[] = []
  #hashes: number[] = []
  #malformed: { readonly letter: DeadLetter; readonly piece: Piece }[] = []

  constructor(topic: string) {
    this.#topic = topic
  }

  /** Changes that wait. */
  get size(): number {
    return this.#changes.length
  }

  /** Between {@link begin} and {@link end}: positions move on with the frame, whatever is in it. */
  get isReading(): boolean {
    return this.#piece !== null
  }

  /** The records that follow come from this frame, which nobody else writes to. */
  begin(frame: Buffer, partition: number, baseOffset: bigint): void {
    this.#piece = { frame, partition, baseOffset, bytes: frame.length, waiting: 0, ended: false }
    this.#held.add(this.#piece)
    this.sizeBytes += frame.length
    this.openedAt ??= performance.now()
  }

  /** @param view of the frame that has the record */
  add(change: Change, record: FrameRecord, view: DataView): void {
    const piece = this.#piece!
    piece.waiting++
    this.#changes.push(change)
    this.#pieces.push(piece)
    this.#deltas.push(Number(record.offset - piece.baseOffset))
    hashBytes(view, contentFrom(record), record.end)
    this.#hashes.push(hashHigh, hashLow)
  }

  addMalformed(letter: DeadLetter): void {
    this.#piece!.waiting++
    this.#malformed.push({ letter, piece: this.#piece! })
  }

  /** The frame has no more. @returns bytes that nothing needs now */
  end(): number {
    const piece = this.#piece!
    this.#piece = null
    piece.ended = true
    piece.waiting++
    return this.#count(leave(piece))
  }

  /** The greatest position that may be applied once all was read that `covers` tells; `all` when that is all there is; null: nothing is. */
  lastCovered(covers: (partition: number, offset: bigint) => boolean): Position | 'all' | null {
    let last: Change | null = null
    let areAll = true
    for (let i = 0; i < this.#changes.length; i++) {
      const change = this.#changes[i]!
      if (!covers(this.#pieces[i]!.partition, offsetOf(this.#pieces[i]!, this.#deltas[i]!))) areAll = false
      else if (last === null || comparePositions(change.position, last.position) > 0) last = change
    }
    if (areAll) return 'all'
    return last === null || opensKeyChange(last) ? null : last.position
  }

  get endsWithOpenKeyChange(): boolean {
    return opensKeyChange(this.#changes.at(-1))
  }

  /**
   * Takes out what the limit admits: in the source's order when it comes from several partitions. With a limit, the last one is no first half of a changed
   * key, whose second half is then still to come.
   */
  take(limit: Position | 'all' | null, severalPartitions: boolean): TakenChanges {
    let order: number[] | null = null
    if (limit === null) order = []
    else if (severalPartitions) {
      order = []
      for (let i = 0; i < this.#changes.length; i++) if (limit === 'all' || comparePositions(this.#changes[i]!.position, limit) <= 0) order.push(i)
      order.sort((a, b) => comparePositions(this.#changes[a]!.position, this.#changes[b]!.position) || a - b)
    } else if (limit !== 'all') order = this.#changes.map((_, i) => i)
    if (order !== null && limit !== 'all' && order.length > 0 && opensKeyChange(this.#changes[order.at(-1)!])) order.pop()
    if (order === null || (!severalPartitions && order.length === this.#changes.length)) {
      const all = new TakenChanges(this.#topic, this.#changes, { pieces: this.#pieces, deltas: this.#deltas, hashes: this.#hashes })
      this.#keep([])
      return all
    }
    const from = { pieces: pick(this.#pieces, order), deltas: pick(this.#deltas, order), hashes: pickPairs(this.#hashes, order) }
    const taken = new TakenChanges(this.#topic, pick(this.#changes, order), from)
    const gone = new Uint8Array(this.#changes.length)
    for (const i of order) gone[i] = 1
    this.#keep(Array.from(gone.keys()).filter((i) => gone[i] === 0))
    return taken
  }

  #keep(indexes: readonly number[]): void {
    this.#changes = pick(this.#changes, indexes)
    this.#pieces = pick(this.#pieces, indexes)
    this.#deltas = pick(this.#deltas, indexes)
    this.#hashes = pickPairs(this.#hashes, indexes)
  }

  /** Calls `visit` with partition and offset of each change that waits. */
  places(visit: (partition: number, offset: bigint) => void): void {
    for (let i = 0; i < this.#changes.length; i++) visit(this.#pieces[i]!.partition, offsetOf(this.#pieces[i]!, this.#deltas[i]!))
  }

  /** Letters of undecodable records before these positions, or of all. They stay until {@link sent}. */
  lettersBefore(positions?: readonly LogPosition[]): DeadLetter[] {
    const letters = this.#malformed.map(({ letter }) => letter)
    if (positions === undefined) return letters
    const before = new Map(positions.map(({ partition, offset }) => [partition, offset]))
    return letters.filter(({ origin }) => origin.offset < (before.get(origin.partition) ?? 0n))
  }

  /** @returns bytes that nothing needs now */
  sent(letters: readonly DeadLetter[]): number {
    const gone = new Set(letters)
    let freed = 0
    for (const { letter, piece } of this.#malformed) if (gone.has(letter)) freed += leave(piece)
    this.#malformed = this.#malformed.filter(({ letter }) => !gone.has(letter))
    return this.#count(freed)
  }

  /** After {@link TakenChanges.release}. @returns the same bytes */
  released(freed: number): number {
    return this.#count(freed)
  }

  /** The frames stay, but their bytes are given back. @returns those bytes */
  disown(): number {
    const bytes = this.sizeBytes
    for (const piece of this.#held) piece.bytes = 0
    this.sizeBytes = 0
    return bytes
  }

  #count(freed: number): number {
    this.sizeBytes -= freed
    for (const piece of this.#held) if (piece.ended && piece.waiting === 0) this.#held.delete(piece)
    return freed
  }
}

function offsetOf(piece: Piece, delta: number): bigint {
  return piece.baseOffset + BigInt(delta)
}

function leave(piece: Piece): number {
  piece.waiting--
  if (piece.waiting > 0 || !piece.ended) return 0
  const { bytes } = piece
  piece.bytes = 0
  return bytes
}

function pick<T>(list: readonly T[], indexes: readonly number[]): T[] {
  return indexes.map((i) => list[i]!)
}

function pickPairs(list: readonly number[], indexes: readonly number[]): number[] {
  return indexes.flatMap((i) => [list[2 * i]!, list[2 * i + 1]!])
}

/** The delete half of an update that changes the key: its insert, which may need the old row's values, must be applied with it. */
function opensKeyChange(change: Change | undefined): boolean {
  return change?.kind === 'row' && change.op === 'd' && change.position.ordinal % 2 === 0
}
