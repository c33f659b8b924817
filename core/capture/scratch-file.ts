import { closeSync, mkdirSync, openSync, readSync, rmSync, unlinkSync, writeSync } from 'node:fs'
import { invariant } from '../errors.ts'
import { diskError } from './disk-error.ts'

const FIRST_BYTES = 16 * 1024
const MEMORY_BYTES = 256 * 1024
/** All scratch files of the process together hold about so much in memory. */
const SHARED_BYTES = 8 * 1024 * 1024
const NOTHING = Buffer.alloc(0)

/**
 * Bytes of a source that wait for their turn: a few in memory, more in a file, so that memory is bounded however many they are, and however many such files
 * there are. Nothing of it outlives the process: what has not been captured, the server sends again. Synchronous.
 *
 * @throws log.full when the disk is; config.invalid when the file cannot be written or read
 */
export class ScratchFile {
  /** Those that hold memory, first those that took some longest ago. */
  static readonly #holders = new Set<ScratchFile>()
  static #heldBytes = 0

  /** Bytes of memory that all of them hold. */
  static get heldBytes(): number {
    return ScratchFile.#heldBytes
  }

  /** Makes a folder for them, without what an earlier process left in it. */
  static emptyFolder(folder: string): void {
    try {
      rmSync(folder, { recursive: true, force: true })
      mkdirSync(folder, { recursive: true })
    } catch (cause) {
      throw diskError(cause, `the folder ${folder} for scratch files`)
    }
  }

  readonly #path: string
  readonly #fix: string | undefined
  #file = -1
  #fileBytes = 0
  /** The bytes after those of the file. */
  #buffer: Buffer = NOTHING
  #used = 0

  /** @param path in a folder of the source's own, which exists; there is no file before the bytes are many */
  constructor(path: string, fix?: string) {
    this.#path = path
    this.#fix = fix
  }

  get size(): number {
    return this.#fileBytes + this.#used
  }

  /** Copies the bytes [from, to) of `bytes` to the end. */
  append(bytes: Buffer, from = 0, to = bytes.length): void {
    const length = to - from
    if (this.#used + length > this.#buffer.length) this.#makeRoom(length)
    bytes.copy(this.#buffer, this.#used, from, to)
    this.#used += length
    if (this.#used > MEMORY_BYTES) this.#flush()
  }

  #makeRoom(length: number): void {
    if (this.#used + length > MEMORY_BYTES) this.#flush()
    if (this.#used + length <= this.#buffer.length) return
    const larger = Buffer.allocUnsafeSlow(Math.max(FIRST_BYTES, this.#used + length, Math.min(MEMORY_BYTES, this.#buffer.length * 4)))
    this.#buffer.copy(larger, 0, 0, this.#used)
    this.#hold(larger)
    for (const other of ScratchFile.#holders) {
      if (ScratchFile.#heldBytes <= SHARED_BYTES || other === this) break
      other.#flush()
      other.#hold(NOTHING)
    }
  }

  #hold(buffer: Buffer): void {
    ScratchFile.#heldBytes += buffer.length - this.#buffer.length
    this.#buffer = buffer
    // to the end of the line
    ScratchFile.#holders.delete(this)
    if (buffer.length > 0) ScratchFile.#holders.add(this)
  }

  #flush(): void {
    if (this.#used === 0) return
    this.#guard(() => {
      if (this.#file < 0) this.#file = openSync(this.#path, 'w+')
      for (let at = 0; at < this.#used; ) at += writeSync(this.#file, this.#buffer, at, this.#used - at, this.#fileBytes + at)
    })
    // only now: what a full disk took a part of is written again from its start
    this.#fileBytes += this.#used
    this.#used = 0
    if (this.#buffer.length > MEMORY_BYTES) this.#hold(Buffer.allocUnsafeSlow(MEMORY_BYTES))
  }

  /** Copies bytes from the place `from` on into `target` at `at`, as many as fit or are left. @returns how many */
  read(target: Buffer, at: number, from: number): number {
    const wanted = Math.max(0, Math.min(target.length - at, this.size - from))
    let got = 0
    while (got < wanted && from + got < this.#fileBytes) {
      const most = Math.min(wanted - got, this.#fileBytes - from - got)
      const read = this.#guard(() => readSync(this.#file, target, at + got, most, from + got))
      invariant(read > 0, `${this.#path} is as long as what was written`)
      got += read
    }
    if (got < wanted) {
      const inBuffer = from + got - this.#fileBytes
      this.#buffer.copy(target, at + got, inBuffer, inBuffer + wanted - got)
    }
    return wanted
  }

  /** The bytes of [from, to), a piece of at most 256 KB at a time; each is a buffer of its own. */
  *pieces(from = 0, to = this.size): Generator<Buffer> {
    for (let at = from; at < to; ) {
      const piece = Buffer.allocUnsafeSlow(Math.min(MEMORY_BYTES, to - at))
      at += this.read(piece, 0, at)
      yield piece
    }
  }

  /** Frees memory and file. May be called twice. */
  discard(): void {
    this.#hold(NOTHING)
    this.#used = 0
    this.#fileBytes = 0
    if (this.#file < 0) return
    closeSync(this.#file)
    this.#file = -1
    unlinkSync(this.#path)
  }

  #guard<T>(work: () => T): T {
    try {
      return work()
    } catch (cause) {
      throw diskError(cause, `the scratch file ${this.#path} of a large transaction`, this.#fix)
    }
  }
}
