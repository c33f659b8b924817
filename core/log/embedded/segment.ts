/**
 * A segment file: the one that is appended to is a row of commit groups; a sealed one ends with a footer, and its groups are not looked at again.
 * A sealed segment may stand for several numbers, [first, last]: the cleaner wrote it in their place.
 *
 * ```
 * footer: per partition, rising keys: its entries (frame-entry.ts) | directory: 56 bytes per partition
 *         { f64 key | i64 first | i64 next | f64 entriesAt | f64 count | f64 sizeBytes | f64 newestAt } | trailer, 32 bytes
 *         { u32 magic | u32 crc32c of directory and the trailer's other fields | f64 directoryAt | f64 partitions | f64 reserved }
 * ```
 */
import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { crc32c } from '@node-rs/crc32'
import { corrupt, errnoOf, readInto } from './file-io.ts'
import { ENTRY_BYTES, EntryList, type FrameEntry, nextOffsetOf, readEntry } from './frame-entry.ts'

const open = promisify(fs.open)
const close = promisify(fs.close)

const RANGE_BYTES = 56
const TRAILER_BYTES = 32
const FOOTER_MAGIC = 0x4d524631

/** What a segment holds of one partition. */
export interface SegmentRange {
  readonly first: bigint
  readonly next: bigint
  /** Frames. */
  readonly count: number
  readonly sizeBytes: number
  /** The latest appendedAt, milliseconds since epoch. */
  readonly newestAt: number
}

export interface SegmentName {
  readonly first: number
  readonly last: number
  /** 0 as it was appended to; one more each time it is rewritten, so that a name never stands for two contents. */
  readonly version: number
}

export function segmentFileName({ first, last, version }: SegmentName): string {
  const digits = (n: number) => String(n).padStart(12, '0')
  return version === 0 ? `${digits(first)}.segment` : `${digits(first)}-${digits(last)}-${version}.segment`
}

export function parseSegmentFileName(file: string): SegmentName | null {
  const match = /^(\d{12})(?:-(\d{12})-([1-9]\d*))?\.segment$/.exec(file)
  if (match === null) return null
  const first = Number(match[1])
  return { first, last: match[2] === undefined ? first : Number(match[2]), version: Number(match[3] ?? 0) }
}

/** Name of the segment that is appended to. */
export function appendedName(number: number): SegmentName {
  return { first: number, last: number, version: 0 }
}

export class Segment implements SegmentName {
  readonly first: number
  readonly last: number
  readonly version: number
  readonly path: string
  /** Bytes of frames and groups, without the footer. */
  sizeBytes = 0
  #live: Map<number, EntryList> | null = new Map()
  #directory: Buffer = Buffer.alloc(0)
  #frames = 0
  #fd: Promise<number> | null = null
  #users = 0

  constructor(dir: string, name: SegmentName) {
    this.first = name.first
    this.last = name.last
    this.version = name.version
    this.path = path.join(dir, segmentFileName(name))
  }

  /** Frames in a segment that is not sealed. */
  get frames(): number {
    return this.#frames
  }

  get sealed(): boolean {
    return this.#live === null
  }

  add(key: number, entry: FrameEntry): void {
    let entries = this.#live!.get(key)
    if (entries === undefined) this.#live!.set(key, (entries = new EntryList()))
    entries.push(entry)
    this.#frames++
  }

  /** Partitions that it holds frames of. */
  get keys(): number[] {
    if (this.#live !== null) return [...this.#live.keys()]
    return Array.from({ length: this.#directory.length / RANGE_BYTES }, (_, i) => this.#directory.readDoubleBE(i * RANGE_BYTES))
  }

  range(key: number): SegmentRange | null {
    if (this.#live !== null) {
      const entries = this.#live.get(key)
      return entries === undefined
        ? null
        : { first: entries.first, next: entries.next, count: entries.count, sizeBytes: entries.sizeBytes, newestAt: entries.newestAt }
    }
    const at = this.#rangeAt(key)
    if (at < 0) return null
    const directory = this.#directory
    return {
      first: directory.readBigInt64BE(at + 8),
      next: directory.readBigInt64BE(at + 16),
      count: directory.readDoubleBE(at + 32),
      sizeBytes: directory.readDoubleBE(at + 40),
      newestAt: directory.readDoubleBE(at + 48),
    }
  }

  #rangeAt(key: number): number {
    let low = 0
    let high = this.#directory.length / RANGE_BYTES
    while (low < high) {
      const middle = (low + high) >> 1
      if (this.#directory.readDoubleBE(middle * RANGE_BYTES) < key) low = middle + 1
      else high = middle
    }
    const at = low * RANGE_BYTES
    return at < this.#directory.length && this.#directory.readDoubleBE(at) === key ? at : -1
  }

  /** Entries [from, to) of the partition, packed. The caller holds the segment (see {@link acquire}). */
  async entries(key: number, from: number, to: number): Promise<Buffer> {
    if (this.#live !== null) return this.#live.get(key)!.slice(from, to)
    const bytes = Buffer.allocUnsafe((to - from) * ENTRY_BYTES)
    const at = this.#directory.readDoubleBE(this.#rangeAt(key) + 24) + from * ENTRY_BYTES
    if ((await readInto(await this.#fd!, bytes, at)) < bytes.length) throw corrupt(this.path, at, 'the footer is cut short')
    return bytes
  }

  /** Index of the first frame of the partition that ends after `offset`; its count when there is none. The caller holds the segment. */
  async find(key: number, offset: bigint): Promise<number> {
    let low = 0
    let high = this.range(key)?.count ?? 0
    while (low < high) {
      const middle = (low + high) >> 1
      if (nextOffsetOf(readEntry(await this.entries(key, middle, middle + 1), 0)) <= offset) low = middle + 1
      else high = middle
    }
    return low
  }

  /** Holds the file open for reading until {@link release}; false when it has been replaced and removed meanwhile. */
  async acquire(): Promise<boolean> {
    this.#users++
    this.#fd ??= open(this.path, 'r')
    const opening = this.#fd
    try {
      await opening
      return true
    } catch (error) {
      this.#users--
      if (this.#fd === opening) this.#fd = null
      if (errnoOf(error) === 'ENOENT') return false
      throw error
    }
  }

  async release(): Promise<void> {
    this.#users--
    const fd = this.#fd
    if (this.#users > 0 || fd === null) return
    this.#fd = null
    await close(await fd)
  }

  /** Fills `into` from byte `at`. The caller holds the segment. @throws log.corrupt when the file ends before */
  async read(into: Buffer, at: number): Promise<void> {
    if ((await readInto(await this.#fd!, into, at, !this.sealed)) < into.length) throw corrupt(this.path, at, `${into.length} bytes of frames are missing`)
  }

  /** The footer as it is to be written at byte `at`; once it is durable, {@link seal} with its directory. */
  footer(at: number): { readonly bytes: readonly Buffer[]; readonly directory: Buffer } {
    const live = this.#live!
    const keys = [...live.keys()].sort((a, b) => a - b)
    const directory = Buffer.alloc(keys.length * RANGE_BYTES)
    const parts: Buffer[] = []
    let end = at
    for (const [i, key] of keys.entries()) {
      const entries = live.get(key)!
      const place = i * RANGE_BYTES
      directory.writeDoubleBE(key, place)
      directory.writeBigInt64BE(entries.first, place + 8)
      directory.writeBigInt64BE(entries.next, place + 16)
      directory.writeDoubleBE(end, place + 24)
      directory.writeDoubleBE(entries.count, place + 32)
      directory.writeDoubleBE(entries.sizeBytes, place + 40)
      directory.writeDoubleBE(entries.newestAt, place + 48)
      parts.push(entries.slice(0, entries.count))
      end += entries.count * ENTRY_BYTES
    }
    const trailer = Buffer.alloc(TRAILER_BYTES)
    trailer.writeUInt32BE(FOOTER_MAGIC, 0)
    trailer.writeDoubleBE(end, 8)
    trailer.writeDoubleBE(keys.length, 16)
    trailer.writeUInt32BE(crc32c(trailer.subarray(8), crc32c(directory)), 4)
    return { bytes: [...parts, directory, trailer], directory }
  }

  /** From now on the footer counts, which is durable in the file. */
  seal(directory: Buffer): void {
    this.#directory = directory
    this.#live = null
    this.#frames = 0
  }

  /** Reads the footer; false when the file has none, as the active segment's. */
  async readFooter(): Promise<boolean> {
    const fd = await open(this.path, 'r')
    try {
      const { size } = await promisify(fs.fstat)(fd)
      if (size < TRAILER_BYTES) return false
      const trailer = Buffer.alloc(TRAILER_BYTES)
      await readInto(fd, trailer, size - TRAILER_BYTES)
      if (trailer.readUInt32BE(0) !== FOOTER_MAGIC) return false
      const [directoryAt, partitions] = [trailer.readDoubleBE(8), trailer.readDoubleBE(16)]
      if (!Number.isSafeInteger(partitions) || partitions < 0 || directoryAt !== size - TRAILER_BYTES - partitions * RANGE_BYTES) return false
      if (directoryAt < 0) return false
      const directory = Buffer.alloc(partitions * RANGE_BYTES)
      await readInto(fd, directory, directoryAt)
      if (crc32c(trailer.subarray(8), crc32c(directory)) !== trailer.readUInt32BE(4)) return false
      this.seal(directory)
      this.sizeBytes = partitions === 0 ? directoryAt : directory.readDoubleBE(24)
      return true
    } finally {
      await close(fd)
    }
  }
}
