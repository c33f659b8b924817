import { createHash } from 'node:crypto'
import type { FileHandle } from 'node:fs/promises'
import { MillraceError } from '../../core/plugin.ts'

const HEAD_BYTES = 1024
const TAIL_BYTES = 256
const PIECE_BYTES = 256 * 1024
const MOST_LINE_BYTES = 16 * 1024 * 1024
const NEWLINE = 10

/** What tells a file from another one: its inode and when that was made. */
export interface FileIdentity {
  readonly ino: string
  readonly born: string
}

/** How far a file is captured, as it lies in the offset. `head` and `tail` are the lengths and hashes of the first and last bytes before `at`. */
export interface FileMark extends FileIdentity {
  readonly key: string
  readonly table: string
  readonly at: number
  readonly head: readonly [number, string]
  readonly tail: readonly [number, string]
  /** It had lines that were not captured yet. */
  readonly behind?: true
}

/** Lines that may be in the log already: a file that has others there was rewritten. */
export interface NextPiece {
  readonly key: string
  readonly to: number
  /** Of its bytes; absent in offsets of before there was one. */
  readonly hash?: string
}

/** Complete lines of a file, from `at` to `to`. */
export interface Piece {
  readonly file: TrackedFile
  readonly at: number
  readonly to: number
  readonly bytes: Buffer
}

/** A file that is open, and how far it is captured. It stays readable when it is renamed or deleted. */
export class TrackedFile {
  /** Names it for ever, also when its rows go on in a copy. */
  readonly key: string
  readonly table: string
  identity: FileIdentity
  name: string
  size: number
  /** Its size when it was last found to have what was captured of it. */
  intactSize: number
  at: number
  /** When it was last seen to grow since it is gone from the folder; null while it is there. */
  goneSince: number | null = null
  #handle: FileHandle
  #head: Buffer
  #tail: Buffer
  #mark: FileMark | null = null
  #firstLine: Buffer | null = null

  private constructor(
    of: { readonly key: string; readonly table: string; readonly identity: FileIdentity; readonly name: string; readonly size: number; readonly at: number },
    handle: FileHandle,
    head: Buffer,
    tail: Buffer,
  ) {
    this.key = of.key
    this.table = of.table
    this.identity = of.identity
    this.name = of.name
    this.size = of.size
    this.intactSize = of.size
    this.at = of.at
    this.#handle = handle
    this.#head = head
    this.#tail = tail
  }

  static async open(
    of: { readonly key: string; readonly table: string; readonly identity: FileIdentity; readonly name: string; readonly size: number; readonly at: number },
    handle: FileHandle,
  ): Promise<TrackedFile> {
    const tail = Math.min(TAIL_BYTES, of.at)
    return new TrackedFile(of, handle, await readAt(handle, 0, Math.min(HEAD_BYTES, of.at)), await readAt(handle, of.at - tail, tail))
  }

  get behind(): boolean {
    return this.size > this.at
  }

  /** Changes only when the file is read on or is found behind. */
  mark(): FileMark {
    const { behind, key, table, identity, at } = this
    if (this.#mark?.at !== at || (this.#mark.behind === true) !== behind || this.#mark.ino !== identity.ino || this.#mark.born !== identity.born) {
      this.#mark = {
        key,
        table,
        ...identity,
        at,
        head: [this.#head.length, hashOf(this.#head)],
        tail: [this.#tail.length, hashOf(this.#tail)],
        ...(behind ? { behind } : {}),
      }
    }
    return this.#mark
  }

  /** The size as it is now; also of a file that is gone. */
  async measure(): Promise<number> {
    this.size = (await this.#handle.stat()).size
    return this.size
  }

  /** Whether what was captured of it is still there, now that it has this size. */
  async isIntact(size: number): Promise<boolean> {
    if (size < this.at) return false
    if (size !== this.intactSize && !(await holds(this.#handle, this.mark()))) return false
    this.intactSize = size
    return true
  }

  /** Its first bytes, as many as `bytes` has, are those; or as many as it has captured. */
  beginsLike(bytes: Buffer): boolean {
    const shared = Math.min(bytes.length, this.#head.length)
    return shared > 0 && this.#head.subarray(0, shared).equals(bytes.subarray(0, shared))
  }

  /** Its rows go on in another file, which begins with the same bytes. */
  async moveTo(handle: FileHandle, identity: FileIdentity, name: string, size: number): Promise<void> {
    await this.#handle.close()
    this.#handle = handle
    this.identity = identity
    this.name = name
    this.size = size
    this.intactSize = size
    this.goneSince = null
  }

  /** Bytes from `at` on up to `to`, or fewer when the file has fewer. */
  read(at: number, to: number): Promise<Buffer> {
    return readAt(this.#handle, at, to - at)
  }

  /** Complete lines from `at` on, about as much as is read at once; null: there is none. @throws source.schema_unsupported for a line without end */
  async lines(at: number, end: number): Promise<Piece | null> {
    for (let most = PIECE_BYTES; ; most *= 4) {
      const bytes = await this.read(at, Math.min(end, at + most))
      const last = bytes.lastIndexOf(NEWLINE)
      if (last >= 0) return { file: this, at, to: at + last + 1, bytes: bytes.subarray(0, last + 1) }
      if (bytes.length < most) return null
      if (most >= MOST_LINE_BYTES) {
        throw new MillraceError('source.schema_unsupported', `the line of ${this.name} at byte ${at} is longer than ${MOST_LINE_BYTES >> 20} MB`, {
          fix: 'take the file away',
        })
      }
    }
  }

  /** The first line without its end; null: it has none that is complete. */
  async firstLine(): Promise<Buffer | null> {
    if (this.#firstLine === null) {
      const piece = await this.lines(0, Number.POSITIVE_INFINITY)
      if (piece !== null) this.#firstLine = linesOf(piece.bytes).next().value?.line ?? null
    }
    return this.#firstLine
  }

  /** The piece, which begins at `at`, is captured. */
  advance({ to, bytes }: Piece): void {
    if (this.#head.length < HEAD_BYTES) this.#head = Buffer.concat([this.#head, bytes.subarray(0, HEAD_BYTES - this.#head.length)])
    this.#tail = Buffer.from(bytes.length >= TAIL_BYTES ? bytes.subarray(-TAIL_BYTES) : Buffer.concat([this.#tail, bytes]).subarray(-TAIL_BYTES))
    this.at = to
    this.size = Math.max(this.size, to)
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

/** Whether a file has what the mark says was captured. */
export async function holds(handle: FileHandle, { at, head, tail }: Pick<FileMark, 'at' | 'head' | 'tail'>): Promise<boolean> {
  const [first, last] = [await readAt(handle, 0, head[0]), await readAt(handle, at - tail[0], tail[0])]
  return first.length === head[0] && last.length === tail[0] && hashOf(first) === head[1] && hashOf(last) === tail[1]
}

export async function readAt(handle: FileHandle, at: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafeSlow(length)
  let got = 0
  while (got < length) {
    const { bytesRead } = await handle.read(bytes, got, length - got, at + got)
    if (bytesRead === 0) break
    got += bytesRead
  }
  return bytes.subarray(0, got)
}

/** Where the complete lines of a file end. */
export async function endOfLines(handle: FileHandle, size: number): Promise<number> {
  for (let end = size; end > 0; ) {
    const from = Math.max(0, end - PIECE_BYTES)
    const last = (await readAt(handle, from, end - from)).lastIndexOf(NEWLINE)
    if (last >= 0) return from + last + 1
    end = from
  }
  return 0
}

/** The lines of a piece without their ends (LF or CRLF), and the byte after each. */
export function* linesOf(bytes: Buffer): Generator<{ readonly line: Buffer; readonly end: number }> {
  for (let from = 0; from < bytes.length; ) {
    const to = bytes.indexOf(NEWLINE, from)
    yield { line: bytes.subarray(from, to > from && bytes[to - 1] === 13 ? to - 1 : to), end: to + 1 }
    from = to + 1
  }
}

export function hashOf(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex').slice(0, 16)
}
