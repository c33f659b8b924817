import { constants } from 'node:fs'
import { access, type FileHandle, open, readdir, readFile, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { MillraceError } from '../../core/plugin.ts'

/** A file that is read at any place while it grows. */
export type SegmentBytes = Pick<FileHandle, 'close'> & {
  /** Up to `length` bytes from `position` on; 0: there are none. */
  read(into: Buffer, offset: number, length: number, position: number): Promise<{ readonly bytesRead: number }>
  stat(): Promise<{ readonly size: number }>
}

/** The files of a `cdc_raw_directory`, here or behind an agent; named without their folder. */
export interface CdcFiles {
  /** The folder's path, or its agent's URL. */
  readonly path: string
  /** @throws source.unprepared, source.unreachable, source.forbidden */
  names(): Promise<readonly string[]>
  /** null: there is none. */
  text(name: string): Promise<string | null>
  /** Bytes; null: there is none. */
  size(name: string): Promise<number | null>
  /** Whether it was there or not. */
  remove(name: string): Promise<void>
  /** @throws an error with the code ENOENT when there is none */
  open(name: string): Promise<SegmentBytes>
  /** Why it cannot be read, or nothing be removed; null: it can. */
  whyNot(): Promise<string | null>
}

/** Of this machine. */
export class LocalFiles implements CdcFiles {
  readonly path: string

  constructor(dir: string) {
    this.path = dir
  }

  async names(): Promise<readonly string[]> {
    try {
      return await readdir(this.path)
    } catch (cause) {
      throw new MillraceError('source.unprepared', `the folder ${this.path} cannot be read: ${(cause as Error).message}`, {
        fix: 'set `cdcRaw` to cdc_raw_directory of the cassandra.yaml of this machine, and let this user read and write there',
        cause,
      })
    }
  }

  text(name: string): Promise<string | null> {
    return readFile(this.#at(name), 'utf8').catch(absent)
  }

  async size(name: string): Promise<number | null> {
    return (await stat(this.#at(name)).catch(absent))?.size ?? null
  }

  remove(name: string): Promise<void> {
    return rm(this.#at(name), { force: true })
  }

  open(name: string): Promise<SegmentBytes> {
    return open(this.#at(name), 'r')
  }

  async whyNot(): Promise<string | null> {
    try {
      await access(this.path, constants.R_OK | constants.W_OK | constants.X_OK)
      return null
    } catch (error) {
      return (error as Error).message
    }
  }

  #at(name: string): string {
    return path.join(this.path, name)
  }
}

function absent(error: NodeJS.ErrnoException): null {
  if (error.code === 'ENOENT') return null
  throw error
}
