/**
 * One segment of a commit log: its header, and its entries whose checksums are right. Format: org.apache.cassandra.db.commitlog.CommitLogDescriptor,
 * CommitLogSegment, CompressedSegment and CommitLogReader of Cassandra 4.0 to 5.0; see "Commit log format" in README.md.
 */
import { open } from 'node:fs/promises'
import { crc32 } from 'node:zlib'
import { MillraceError } from '../../core/plugin.ts'
import type { SegmentBytes } from './cdc-files.ts'
import { compressorOf, type Uncompress } from './segment-compression.ts'
import { segmentError } from './segment-error.ts'

/** 7: Cassandra 4.0, 4.1 and 5.0 that can be rolled back; 8: 5.0 alone. */
const VERSIONS = [7, 8]
const HEADER_BYTES = 14
const CHECKSUM_BYTES = 4
const MARKER_BYTES = 8
/** An entry around its mutation: size, checksum of the size, checksum of both. */
const ENTRY_HEAD_BYTES = 8
const LEAST_MUTATION_BYTES = 10
const BLOCK_BYTES = 1024 * 1024
/** Up to this many bytes a loop beats the call into native code. */
const SHORT_CHECKSUM = 64

export interface SegmentDescriptor {
  readonly version: number
  /** Rises from segment to segment of a node. */
  readonly id: bigint
  /** Class of the compressor, as the header has it; null: not compressed. */
  readonly compression: string | null
}

/** Entries that lie in one piece of memory, which is theirs alone. */
export interface EntryBlock {
  readonly bytes: Buffer
  /** Entry i is the mutation [starts[i], ends[i]) of `bytes`. */
  readonly starts: readonly number[]
  readonly ends: readonly number[]
  /** Where to read on after entry i: see {@link SegmentReader.position}. */
  readonly positions: readonly number[]
}

/** What `_cdc.idx` beside the segment says. */
export interface SegmentIndex {
  /** What lies before this position will not change. */
  readonly until: number
  /** The database is done with the segment. */
  readonly completed: boolean
}

/** Reads forward, while the database appends. Not reentrant. */
export class SegmentReader implements AsyncDisposable {
  readonly file: string
  readonly descriptor: SegmentDescriptor
  readonly #handle: SegmentBytes
  readonly #uncompress: Uncompress | null
  /** Where the next marker lies in the file, and where it would lie were nothing compressed. */
  #markerAt: number
  #logicalAt: number
  /** The section being read: uncompressed, it is in the file; else in #plain. Offsets are logical. */
  #sectionEnd: number
  #at: number
  #plain: Buffer | null = null
  #plainFrom = 0
  /** Bytes of the file that are durable; from where on. */
  #window: Buffer = Buffer.alloc(0)
  #windowFrom = 0

  private constructor(file: string, handle: SegmentBytes, descriptor: SegmentDescriptor, uncompress: Uncompress | null, from: number) {
    this.file = file
    this.#handle = handle
    this.descriptor = descriptor
    this.#uncompress = uncompress
    this.#markerAt = from
    this.#logicalAt = from
    this.#sectionEnd = from
    this.#at = from
  }

  /**
   * @param from a position that was given before: entries up to there are passed over; 0: from the start
   * @param opened the file, when it does not lie at the path `file` here; closed with the reader
   * @throws source.protocol when header or markers are broken, or there is no entry at `from`; source.unprepared for a segment that is encrypted, or of a
   * version or compression that is not known
   */
  static async open(file: string, from = 0, opened?: SegmentBytes): Promise<SegmentReader> {
    const handle = opened ?? (await open(file, 'r'))
    try {
      const { descriptor, uncompress, end } = await readHeader(file, handle)
      const reader = new SegmentReader(file, handle, descriptor, uncompress, end)
      if (from > end) await reader.#seek(from)
      return reader
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /**
   * Where the next entry starts: the place in the segment as Cassandra counts it (`CommitLogPosition.position`, and the offset in `_cdc.idx`). It is the
   * offset in the file unless the segment is compressed: then, what that would be uncompressed.
   */
  get position(): number {
    return this.#at
  }

  /**
   * The next entries, about 1 MB of them, or one that is larger; null: there are no more yet, or, when the segment is completed, no more at all.
   *
   * A segment whose index was completed after the database had died says its file's length there, which is more than was written.
   *
   * @throws source.protocol with file and offset, again at the next call, for a checksum or a length that is wrong, and for a completed segment of which
   * something is missing
   */
  async read(index: SegmentIndex): Promise<EntryBlock | null> {
    for (;;) {
      if (this.#at >= this.#sectionEnd && !(await this.#openSection(index))) return null
      const block = this.#plain === null ? await this.#readFile() : this.#entries(this.#plain, this.#at - this.#plainFrom, this.#plainFrom, true)
      if (block === null) throw this.#cutOff('a section is cut off by the end of the file')
      if (block.starts.length > 0) return block
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#handle.close()
  }

  /** Goes to the section of `from`, marker by marker. */
  async #seek(from: number): Promise<void> {
    while (this.#at < from) {
      if (!(await this.#openSection({ until: Number.POSITIVE_INFINITY, completed: false }, from))) {
        throw segmentError(`the segment has no position ${from}, which was read before`, this.file, this.#logicalAt)
      }
      if (from < this.#at) throw segmentError(`position ${from} lies within a marker`, this.file, this.#at)
      this.#at = Math.min(from, this.#sectionEnd)
    }
    // it may go beyond what is durable
    this.#window = Buffer.alloc(0)
  }

  /** @param wanted what lies before this position need not be uncompressed */
  async #openSection(index: SegmentIndex, wanted = 0): Promise<boolean> {
    const { completed } = index
    const until = completed ? Number.POSITIVE_INFINITY : index.until
    const marker = this.#markerAt
    const logical = this.#logicalAt
    const head = this.#uncompress === null ? MARKER_BYTES : MARKER_BYTES + 4
    this.#plain = null
    if (logical + MARKER_BYTES > until) return false
    const bytes = this.#uncompress === null ? await this.#load(marker, head, until) : await this.#exactly(marker, head)
    if (bytes === null || (bytes.readInt32BE(0) === 0 && bytes.readInt32BE(4) === 0)) {
      if (completed && logical < index.until && index.until !== (await this.#handle.stat()).size) throw this.#cutOff(`${index.until} bytes were written`)
      return false
    }
    const next = bytes.readInt32BE(0)
    if (bytes.readUInt32BE(4) !== markerChecksum(this.descriptor.id, marker)) {
      throw segmentError('the marker of a section has a wrong checksum', this.file, logical)
    }
    if (next < marker + head) throw segmentError(`a section ends at ${next}, before it starts`, this.file, logical)
    let end = next
    if (this.#uncompress !== null) {
      const length = bytes.readInt32BE(MARKER_BYTES)
      if (length < 0) throw segmentError(`a section has ${length} bytes`, this.file, logical)
      end = logical + MARKER_BYTES + length
      if (end > until) return false
      if (end > wanted) {
        const compressed = await this.#exactly(marker + head, next - marker - head)
        if (compressed === null) {
          if (completed) throw this.#cutOff('a section is cut off by the end of the file')
          return false
        }
        try {
          this.#plain = this.#uncompress(compressed, length)
        } catch (cause) {
          throw segmentError(`a section that cannot be uncompressed by ${this.descriptor.compression}`, this.file, logical, cause)
        }
        this.#plainFrom = logical + MARKER_BYTES
      }
    } else if (next > until) return false
    this.#markerAt = next
    this.#logicalAt = end
    this.#sectionEnd = end
    this.#at = logical + MARKER_BYTES
    return true
  }

  #cutOff(what: string): MillraceError {
    return segmentError(`${what}, but nothing more is there`, this.file, this.#at)
  }

  /** Of a section that lies in the file as it is. */
  async #readFile(): Promise<EntryBlock | null> {
    const from = this.#at
    const left = this.#sectionEnd - from
    let bytes = await this.#load(from, Math.min(left, BLOCK_BYTES), this.#sectionEnd)
    let block = bytes === null ? null : this.#entries(bytes, 0, from, bytes.length === left)
    if (block !== null && block.starts.length === 0 && bytes!.length < left) {
      // an entry, or the padding at the end, that is larger than a block
      const size = bytes!.readInt32BE(0)
      bytes = await this.#load(from, size === 0 ? left : ENTRY_HEAD_BYTES + size + CHECKSUM_BYTES, this.#sectionEnd)
      block = bytes === null ? null : this.#entries(bytes, 0, from, bytes.length === left)
    }
    return block
  }

  /**
   * Entries from `from` on in `bytes`, whose first byte is at the logical offset `base`; moves #at behind them.
   * @param whole `bytes` goes to the end of the section
   */
  #entries(bytes: Buffer, from: number, base: number, whole: boolean): EntryBlock {
    const starts: number[] = []
    const ends: number[] = []
    const positions: number[] = []
    const to = bytes.length
    const last = from + BLOCK_BYTES
    let fault: string | null = null
    let at = from
    while (at < last) {
      if (to - at < 4) {
        if (whole) at = to
        break
      }
      const size = bytes.readInt32BE(at)
      if (size === 0) {
        if (!whole) break
        if (isZero(bytes, at, to)) at = to
        else fault = 'an entry of 0 bytes with others behind it'
        break
      }
      if (to - at < ENTRY_HEAD_BYTES) {
        if (whole) fault = 'an entry is cut off by the end of its section'
        break
      }
      const start = at + ENTRY_HEAD_BYTES
      const end = start + size
      const sizeChecksum = checksum(bytes, at, at + 4, 0)
      if (sizeChecksum !== bytes.readUInt32BE(at + 4)) fault = 'the size of an entry has a wrong checksum'
      else if (size < LEAST_MUTATION_BYTES || base + end + CHECKSUM_BYTES > this.#sectionEnd)
        fault = `an entry of ${size} bytes, which does not fit its section`
      if (fault !== null || end + CHECKSUM_BYTES > to) break
      // both sums go on: this one starts from the size
      if (checksum(bytes, start, end, sizeChecksum) !== bytes.readUInt32BE(end)) {
        fault = 'an entry has a wrong checksum'
        break
      }
      starts.push(start)
      ends.push(end)
      at = end + CHECKSUM_BYTES
      positions.push(base + at)
    }
    // what comes before it is given first
    if (fault !== null && starts.length === 0) throw segmentError(fault, this.file, base + at)
    this.#at = base + at
    if (this.#at >= this.#sectionEnd) this.#plain = null
    return { bytes, starts, ends, positions }
  }

  /** Bytes of the file from `at` on: at least `least`, and what else is at hand before `until`; null: the file is shorter. */
  async #load(at: number, least: number, until: number): Promise<Buffer | null> {
    let from = at - this.#windowFrom
    if (from < 0 || from + least > this.#window.length) {
      const room = Math.max(least, Math.min(BLOCK_BYTES, until - at))
      this.#window = await this.#upTo(at, room)
      this.#windowFrom = at
      from = 0
    }
    if (from + least > this.#window.length) {
      this.#window = Buffer.alloc(0)
      return null
    }
    return this.#window.subarray(from, Math.min(this.#window.length, from + until - at))
  }

  async #exactly(at: number, length: number): Promise<Buffer | null> {
    // what is broken may say any length: no memory before the file is known to have it
    if (length > BLOCK_BYTES && at + length > (await this.#handle.stat()).size) return null
    const bytes = await this.#upTo(at, length)
    return bytes.length === length ? bytes : null
  }

  async #upTo(at: number, length: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(length)
    let got = 0
    while (got < length) {
      const { bytesRead } = await this.#handle.read(bytes, got, length - got, at + got)
      if (bytesRead === 0) break
      got += bytesRead
    }
    return bytes.subarray(0, got)
  }
}

async function readHeader(file: string, handle: SegmentBytes) {
  const first = Buffer.alloc(HEADER_BYTES + 0xffff + CHECKSUM_BYTES)
  const { bytesRead } = await handle.read(first, 0, first.length, 0)
  const parametersEnd = HEADER_BYTES + (bytesRead < HEADER_BYTES ? 0 : first.readUInt16BE(HEADER_BYTES - 2))
  if (bytesRead < parametersEnd + CHECKSUM_BYTES) throw segmentError('the file ends within its header', file, 0)
  const version = first.readInt32BE(0)
  const id = first.readBigInt64BE(4)
  const words = Buffer.alloc(16)
  words.writeInt32BE(version, 0)
  writeId(words, 4, id)
  words.writeInt32BE(parametersEnd - HEADER_BYTES, 12)
  const parameters = first.subarray(HEADER_BYTES, parametersEnd)
  if (crc32(parameters, crc32(words)) !== first.readUInt32BE(parametersEnd)) throw segmentError('the header has a wrong checksum', file, 0)
  if (!VERSIONS.includes(version)) throw unprepared(file, `has version ${version}`, 'Cassandra 4.0 to 5.0 can be captured')
  const { compressionClass, encCipher } = parseParameters(parameters.toString(), file)
  if (encCipher !== undefined) throw unprepared(file, 'is encrypted', 'transparent_data_encryption_options of cassandra.yaml must be off')
  const uncompress = compressionClass === undefined ? null : compressorOf(compressionClass)
  if (uncompress === undefined) {
    throw unprepared(file, `is compressed by ${compressionClass}`, 'set commitlog_compression of cassandra.yaml to LZ4Compressor')
  }
  return { descriptor: { version, id, compression: compressionClass ?? null }, uncompress, end: parametersEnd + CHECKSUM_BYTES }
}

function parseParameters(text: string, file: string): { readonly compressionClass?: string; readonly encCipher?: unknown } {
  if (text === '') return {}
  try {
    const parameters = JSON.parse(text) as { compressionClass?: unknown; encCipher?: unknown }
    const { compressionClass, encCipher } = parameters
    return { ...(typeof compressionClass === 'string' ? { compressionClass } : {}), ...(encCipher === undefined ? {} : { encCipher }) }
  } catch (cause) {
    throw segmentError('the parameters in the header are no JSON', file, HEADER_BYTES, cause)
  }
}

function unprepared(file: string, what: string, fix: string): MillraceError {
  return new MillraceError('source.unprepared', `commit log segment ${file} ${what}`, { fix })
}

/** The low half first. */
function writeId(into: Buffer, at: number, id: bigint): void {
  into.writeUInt32BE(Number(id & 0xffff_ffffn), at)
  into.writeInt32BE(Number(id >> 32n), at + 4)
}

function markerChecksum(id: bigint, markerAt: number): number {
  const words = Buffer.alloc(12)
  writeId(words, 0, id)
  words.writeInt32BE(markerAt, 8)
  return crc32(words)
}

function isZero(bytes: Buffer, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (bytes[i] !== 0) return false
  return true
}

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  let c = n
  for (let k = 0; k < 8; k++) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1
  return c
})

/** CRC-32 of [from, to), going on from `before`. */
function checksum(bytes: Buffer, from: number, to: number, before: number): number {
  if (to - from > SHORT_CHECKSUM) return crc32(bytes.subarray(from, to), before)
  let c = ~before
  for (let i = from; i < to; i++) c = TABLE[(c ^ bytes[i]!) & 0xff]! ^ (c >>> 8)
  return ~c >>> 0
}
