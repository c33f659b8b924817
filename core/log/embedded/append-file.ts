import fs from 'node:fs'
import { promisify } from 'node:util'
import { fdatasync, writeAll } from './file-io.ts'

/** A group up to this size gets room ahead. */
const SMALL_BYTES = 64 * 1024
/** Little, since the append that makes room waits until it is on disk. */
const ZEROS = Buffer.alloc(256 * 1024)

/**
 * The file that is appended to. While appends are small, zeros are written ahead of them, in bulk: overwriting blocks that exist spares the file
 * system's journal a commit at each sync, which halves the time of one. A reader finds no group in zeros. One call at a time.
 */
export class AppendFile {
  readonly #fd: number
  readonly #roomBytes: number
  /** The file's size: beyond what was appended there are zeros only. */
  #sizeBytes: number
  /** Set while the bytes from here on may be those of an append that failed. */
  #cutTo: number | null = null

  /** @param segmentBytes about how large the file becomes; its room is a small part of that */
  constructor(fd: number, sizeBytes: number, segmentBytes: number) {
    this.#fd = fd
    this.#roomBytes = Math.min(ZEROS.length, Math.floor(segmentBytes / 32))
    this.#sizeBytes = sizeBytes
  }

  /** Writes `buffers` at byte `at`, and whatever failed there before is gone. Durable when it resolves. */
  async append(buffers: readonly Buffer[], at: number): Promise<void> {
    await this.cut()
    this.#cutTo = at
    await writeAll(this.#fd, buffers, at)
    const bytes = buffers.reduce((sum, { length }) => sum + length, 0)
    const end = at + bytes
    if (end > this.#sizeBytes) {
      this.#sizeBytes = end
      if (bytes <= SMALL_BYTES) this.#makeRoom(end)
    }
    await fdatasync(this.#fd)
    this.#cutTo = null
  }

  /** Removes what a failed append left behind; until that succeeds nothing is appended, so that no stale footer can be taken for a good one. */
  async cut(): Promise<void> {
    if (this.#cutTo !== null) await this.#truncate(this.#cutTo)
    this.#cutTo = null
  }

  /** Ends the file at byte `at` with `footer`, durable when it resolves. What fails is cut by the next append. */
  async seal(footer: readonly Buffer[], at: number): Promise<void> {
    await this.cut()
    await this.#truncate(at)
    this.#cutTo = at
    await writeAll(this.#fd, footer, at)
    await fdatasync(this.#fd)
  }

  /** Closes the file; it ends at byte `at`. */
  async close(at: number): Promise<void> {
    if (this.#sizeBytes > at) await this.#truncate(at)
    fs.closeSync(this.#fd)
  }

  /** Closes a sealed file as it is. */
  leave(): void {
    fs.closeSync(this.#fd)
  }

  async #truncate(at: number): Promise<void> {
    await promisify(fs.ftruncate)(this.#fd, at)
    this.#sizeBytes = at
  }

  #makeRoom(end: number): void {
    try {
      this.#sizeBytes += fs.writeSync(this.#fd, ZEROS, 0, this.#roomBytes, end)
    } catch {
      // no room, no gain: the append itself has its place
    }
  }
}
