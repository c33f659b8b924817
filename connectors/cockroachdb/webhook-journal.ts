import {
  closeSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import path from 'node:path'
import { crc32 } from 'node:zlib'
import { diskError, MillraceError } from '../../core/plugin.ts'
import type { FeedMessage } from './changefeed-message.ts'

/** A segment is closed at this size: whole ones are removed. */
const SEGMENT_BYTES = 16 * 1024 * 1024
/** Length and checksum of a batch, then the latest commit of its rows: 4, 4 and 8 bytes. */
const HEAD_BYTES = 16

interface Segment {
  readonly path: string
  bytes: number
  /** The latest commit in it. */
  latest: bigint
}

/**
 * Rows that were received and are not all in the log yet. `append` returns once they are on the disk: the cluster may forget them then.
 * @throws log.full, log.corrupt
 */
export class WebhookJournal implements Disposable {
  readonly #folder: string
  readonly #old: readonly Segment[]
  readonly #segments: Segment[] = []
  #file = -1
  #next: number
  /** Rows up to this nanosecond's end may be gone from it. */
  #released: bigint

  constructor(folder: string) {
    this.#folder = folder
    mkdirSync(folder, { recursive: true })
    const names = readdirSync(folder).filter((name) => name.endsWith('.rows'))
    names.sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10))
    this.#segments = names.map((name, n) => this.#check(path.join(folder, name), n === names.length - 1))
    this.#old = [...this.#segments]
    this.#released = releasedOf(folder)
    this.#next = names.length === 0 ? 0 : Number.parseInt(names.at(-1)!, 10) + 1
  }

  /** Looks at every batch; one that was being written when the process ended was not answered, and is cut off. */
  #check(at: string, isLast: boolean): Segment {
    const bytes = readFileSync(at)
    let latest = 0n
    let end = 0
    while (end < bytes.length) {
      const length = end + HEAD_BYTES <= bytes.length ? bytes.readUInt32BE(end) : 0
      const to = end + length
      if (length < HEAD_BYTES || to > bytes.length || crc32(bytes.subarray(end + 8, to)) !== bytes.readUInt32BE(end + 4)) {
        const isTorn =
          isLast && (length < HEAD_BYTES || to >= bytes.length) && (length >= HEAD_BYTES || bytes.subarray(end + HEAD_BYTES).every((byte) => byte === 0))
        if (!isTorn) {
          throw new MillraceError('log.corrupt', `${at} is damaged at byte ${end}`, {
            fix: 'take the folder away: the changefeed then starts again from what is in the log; look after the disk',
          })
        }
        const file = openSync(at, 'r+')
        ftruncateSync(file, end)
        fsyncSync(file)
        closeSync(file)
        break
      }
      const commit = bytes.readBigUInt64BE(end + 8)
      if (commit > latest) latest = commit
      end = to
    }
    return { path: at, bytes: end, latest }
  }

  /** All that was there when the journal was opened, about a segment at a time. */
  *replay(): Generator<readonly FeedMessage[]> {
    for (const segment of this.#old) {
      if (!this.#segments.includes(segment)) continue
      const bytes = readFileSync(segment.path)
      const messages: FeedMessage[] = []
      for (let at = 0; at < segment.bytes; ) {
        const end = at + bytes.readUInt32BE(at)
        at += HEAD_BYTES
        const take = () => {
          const from = at + 4
          at = from + bytes.readUInt32BE(at)
          return bytes.subarray(from, at)
        }
        while (at < end) messages.push({ table: take().toString(), key: take(), value: take() })
      }
      yield messages
    }
  }

  append(messages: readonly FeedMessage[], latest: bigint): void {
    const parts = messages.flatMap(({ table, key, value }) => [Buffer.from(table!), key, value].flatMap((part) => [length(part.length), part]))
    const batch = Buffer.concat([Buffer.alloc(HEAD_BYTES), ...parts])
    batch.writeUInt32BE(batch.length)
    batch.writeBigUInt64BE(latest, 8)
    batch.writeUInt32BE(crc32(batch.subarray(8)), 4)
    this.#guard(() => {
      const segment = this.#open()
      try {
        for (let from = 0; from < batch.length; ) from += writeSync(this.#file, batch, from, batch.length - from, segment.bytes + from)
        fdatasyncSync(this.#file)
      } catch (error) {
        ftruncateSync(this.#file, segment.bytes)
        throw error
      }
      segment.bytes += batch.length
      if (latest > segment.latest) segment.latest = latest
      if (segment.bytes >= SEGMENT_BYTES) this.#close()
    })
  }

  #open(): Segment {
    if (this.#file >= 0) return this.#segments.at(-1)!
    const segment: Segment = { path: path.join(this.#folder, `${this.#next++}.rows`), bytes: 0, latest: 0n }
    this.#file = openSync(segment.path, 'w')
    syncFolder(this.#folder)
    this.#segments.push(segment)
    return segment
  }

  #close(): void {
    if (this.#file >= 0) closeSync(this.#file)
    this.#file = -1
  }

  /** The log has all up to the end of a nanosecond: segments of earlier rows alone go away. */
  release(wall: bigint): void {
    if (this.#file >= 0 && this.#segments.at(-1)!.latest <= wall && this.#segments.at(-1)!.bytes > 0) this.#close()
    const open = this.#file >= 0 ? this.#segments.at(-1) : undefined
    const gone = this.#segments.filter((one) => one !== open && one.latest <= wall)
    const latest = gone.reduce((most, one) => (one.latest > most ? one.latest : most), this.#released)
    if (latest > this.#released) {
      // first said, then done: who starts from an older offset must not take this journal for whole
      writeDurably(path.join(this.#folder, RELEASED), latest.toString())
      this.#released = latest
    }
    for (const segment of gone) {
      rmSync(segment.path, { force: true })
      this.#segments.splice(this.#segments.indexOf(segment), 1)
    }
  }

  [Symbol.dispose](): void {
    this.#close()
  }

  #guard(work: () => void): void {
    try {
      work()
    } catch (cause) {
      throw diskError(cause, `the journal of received rows in ${this.#folder}`)
    }
  }
}

const RELEASED = 'released'

/** Up to which nanosecond's end rows may be gone from the journal in a folder. */
export function releasedOf(folder: string): bigint {
  return existsSync(path.join(folder, RELEASED)) ? BigInt(readFileSync(path.join(folder, RELEASED), 'utf8')) : 0n
}

/** The file has the text, or what it had before. */
export function writeDurably(file: string, text: string): void {
  const made = openSync(`${file}.new`, 'w')
  writeSync(made, text)
  fsyncSync(made)
  closeSync(made)
  renameSync(`${file}.new`, file)
  syncFolder(path.dirname(file))
}

export function syncFolder(folder: string): void {
  const file = openSync(folder, 'r')
  fsyncSync(file)
  closeSync(file)
}

function length(value: number): Buffer {
  const bytes = Buffer.allocUnsafe(4)
  bytes.writeUInt32BE(value)
  return bytes
}
