/** Where a table's files lie: the seam behind which local folders and object stores are the same. */

import type { MillraceError } from '../../core/plugin.ts'

/** Reads parts of one file; `slice` copies [from, to). */
export interface RandomAccessFile extends AsyncDisposable {
  readonly byteLength: number
  slice(from: number, to?: number): Promise<ArrayBuffer>
}

export interface ListedFile {
  readonly location: string
  readonly name: string
  readonly ageMs: number
}

/** Every method throws sink.unreachable when the store does not answer and sink.forbidden when it refuses. */
export interface FileStore {
  /** Writes a new file; durable when it returns, but for its name, which {@link syncFolder} makes durable. */
  write(location: string, bytes: Uint8Array): Promise<void>
  /** Makes the names in a folder durable. */
  syncFolder(location: string): Promise<void>
  /** Replaces a small file whole, without waiting for the disk. */
  replace(location: string, text: string): Promise<void>
  read(location: string): Promise<Buffer>
  open(location: string): Promise<RandomAccessFile>
  /** Best effort: what is left is an orphan, found again at the next start. Throws nothing; returns what went wrong. */
  remove(locations: Iterable<string>): Promise<readonly MillraceError[]>
  /** Files of one folder; empty when there is no such folder. */
  list(location: string): Promise<readonly ListedFile[]>
}
