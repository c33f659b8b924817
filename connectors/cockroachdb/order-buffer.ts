import { closeSync, openSync, readdirSync, readSync, rmSync, writeSync } from 'node:fs'
import path from 'node:path'
import { diskError, invariant } from '../../core/plugin.ts'
import type { Hlc } from './hlc.ts'

/** Runs of one level that are merged into one of the next. */
const FAN = 16
const PREFIX = 'changefeed-order-'
const READ_BYTES = 64 * 1024
const WRITE_BYTES = 1024 * 1024
/** Length of the record, then its time: 8 and 4 bytes; then table and key, each after its length (4), and the value. */
const TIME_AT = 4
const NAMES_AT = 16

export interface BufferedRow {
  readonly at: Hlc
  readonly table: string
  readonly key: Buffer
  readonly value: Buffer
  /** Bytes it takes. */
  readonly size: number
}

/** A sorted file of records. */
interface Run {
  readonly path: string
  readonly file: number
  readonly level: number
  /** The next record, and the end. */
  from: number
  readonly to: number
}

/**
 * Puts what a changefeed sends in any order into the order of commit time, table and key, and leaves out what came twice: of several messages of a row with
 * one commit time the last one counts. What does not fit in memory is sorted into files. Nothing is kept over a restart: it is asked for again.
 *
 * @throws log.full when the disk is
 */
export class OrderBuffer implements Disposable {
  readonly #folder: string
  readonly #memoryBytes: number
  #held: Buffer[] = []
  #heldBytes = 0
  #fileBytes = 0
  /** In the order of their age. */
  readonly #runs: Run[] = []
  #made = 0

  constructor(folder: string, memoryBytes: number) {
    this.#folder = folder
    this.#memoryBytes = memoryBytes
  }

  /** Bytes that wait. */
  get bytes(): number {
    return this.#heldBytes + this.#fileBytes
  }

  add({ wall, logical }: Hlc, table: string, key: Buffer, value: Buffer): void {
    const name = Buffer.from(table)
    const record = Buffer.allocUnsafeSlow(NAMES_AT + 8 + name.length + key.length + value.length)
    record.writeUInt32BE(record.length)
    record.writeBigUInt64BE(wall, TIME_AT)
    record.writeUInt32BE(logical, TIME_AT + 8)
    let at = NAMES_AT
    for (const part of [name, key]) {
      at = record.writeUInt32BE(part.length, at)
      at += part.copy(record, at)
    }
    value.copy(record, at)
    this.#held.push(record)
    this.#heldBytes += record.length
    if (this.#heldBytes > this.#memoryBytes) this.#spill()
  }

  /** Takes out every row of a nanosecond up to `wall`. Nothing may be added before the last one was taken. */
  *upTo(wall: bigint): Generator<BufferedRow> {
    const end = Buffer.alloc(8)
    end.writeBigUInt64BE(wall + 1n)
    const isDue = (record: Buffer) => record.compare(end, 0, 8, TIME_AT, TIME_AT + 8) < 0
    this.#held.sort(compare)
    const due = this.#held.findIndex((record) => !isDue(record))
    const memory = this.#held.splice(0, due < 0 ? this.#held.length : due)
    for (const record of memory) this.#heldBytes -= record.length
    for (const record of this.#merged(this.#runs, memory, isDue)) yield rowOf(record)
    for (const run of this.#runs.filter(({ from, to }) => from === to)) this.#drop(run)
  }

  #spill(): void {
    this.#held.sort(compare)
    const held = this.#held
    this.#held = []
    this.#heldBytes = 0
    this.#runs.push(this.#write(0, held))
    for (let level = 0; ; level++) {
      const same = this.#runs.filter((run) => run.level === level)
      if (same.length < FAN) return
      const merged = this.#write(
        level + 1,
        this.#merged(same, [], () => true),
      )
      this.#runs.splice(this.#runs.indexOf(same[0]!), 0, merged)
      for (const run of same) this.#drop(run)
    }
  }

  #write(level: number, records: Iterable<Buffer>): Run {
    const at = path.join(this.#folder, `${PREFIX}${this.#made++}`)
    return this.#guard(at, () => {
      const file = openSync(at, 'w+')
      let written = 0
      let pending: Buffer[] = []
      let pendingBytes = 0
      const flush = () => {
        const bytes = Buffer.concat(pending)
        for (let from = 0; from < bytes.length; ) from += writeSync(file, bytes, from, bytes.length - from, written + from)
        written += bytes.length
        pending = []
        pendingBytes = 0
      }
      for (const record of records) {
        pending.push(record)
        pendingBytes += record.length
        if (pendingBytes >= WRITE_BYTES) flush()
      }
      flush()
      this.#fileBytes += written
      return { path: at, file, level, from: 0, to: written }
    })
  }

  /** The due records of sorted runs and of memory in order, of equals the newest. Moves the runs on. */
  *#merged(runs: readonly Run[], memory: readonly Buffer[], isDue: (record: Buffer) => boolean): Generator<Buffer> {
    const inputs: Iterator<Buffer>[] = [...runs.map((run) => this.#records(run, isDue)), memory[Symbol.iterator]()]
    const heads = inputs.map((input) => input.next().value as Buffer | undefined)
    let last: Buffer | null = null
    for (;;) {
      let first = -1
      // of equals the oldest comes first, so that the newest replaces it
      for (let i = 0; i < heads.length; i++) if (heads[i] !== undefined && (first < 0 || compare(heads[i]!, heads[first]!) < 0)) first = i
      if (first < 0) break
      const record = heads[first]!
      heads[first] = inputs[first]!.next().value as Buffer | undefined
      if (last !== null && compare(last, record) !== 0) yield last
      last = record
    }
    if (last !== null) yield last
  }

  *#records(run: Run, isDue: (record: Buffer) => boolean): Generator<Buffer> {
    let bytes = Buffer.alloc(0)
    let at = 0
    while (run.from < run.to) {
      const left = bytes.length - at
      const length = left < 4 ? 4 : bytes.readUInt32BE(at)
      invariant(length <= run.to - run.from, `${run.path} has whole records`)
      if (left < length) {
        // each piece is a buffer of its own: records that were given out stay as they are
        const piece = Buffer.allocUnsafeSlow(Math.min(run.to - run.from, Math.max(READ_BYTES, length)))
        this.#guard(run.path, () => {
          for (let got = 0; got < piece.length; ) {
            const read = readSync(run.file, piece, got, piece.length - got, run.from + got)
            invariant(read > 0, `${run.path} is as long as what was written`)
            got += read
          }
        })
        bytes = piece
        at = 0
        continue
      }
      const record = bytes.subarray(at, at + length)
      if (!isDue(record)) return
      at += length
      run.from += length
      this.#fileBytes -= length
      yield record
    }
  }

  #drop(run: Run): void {
    this.#runs.splice(this.#runs.indexOf(run), 1)
    closeSync(run.file)
    rmSync(run.path, { force: true })
  }

  /** Forgets everything, also files that a process left that was killed. */
  clear(): void {
    this.#held = []
    this.#heldBytes = 0
    for (const run of [...this.#runs]) this.#drop(run)
    this.#fileBytes = 0
    for (const name of readdirSync(this.#folder)) if (name.startsWith(PREFIX)) rmSync(path.join(this.#folder, name), { force: true })
  }

  [Symbol.dispose](): void {
    this.clear()
  }

  #guard<T>(file: string, work: () => T): T {
    try {
      return work()
    } catch (cause) {
      throw diskError(cause, `${file}, in which rows wait for their resolved timestamp`)
    }
  }
}

/** By commit time, then by table and key; 0: the same change. */
function compare(a: Buffer, b: Buffer): number {
  return a.compare(b, TIME_AT, valueAt(b), TIME_AT, valueAt(a))
}

function valueAt(record: Buffer): number {
  const key = NAMES_AT + 4 + record.readUInt32BE(NAMES_AT)
  return key + 4 + record.readUInt32BE(key)
}

function rowOf(record: Buffer): BufferedRow {
  const table = NAMES_AT + 4
  const key = table + record.readUInt32BE(NAMES_AT) + 4
  const value = valueAt(record)
  return {
    at: { wall: record.readBigUInt64BE(TIME_AT), logical: record.readUInt32BE(TIME_AT + 8) },
    table: record.toString('utf8', table, key - 4),
    key: record.subarray(key, value),
    value: record.subarray(value),
    size: record.length,
  }
}
