/** Where a table's files lie. Local folders only; locations are `file://` and the absolute path, as PyIceberg and Java write them. */
import { randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { MillraceError } from '../../core/plugin.ts'

/** Reads parts of one file; `slice` copies [from, to). */
export interface RandomAccessFile extends AsyncDisposable {
  readonly byteLength: number
  slice(from: number, to?: number): Promise<ArrayBuffer>
}

/** @throws config.unsupported for object stores */
export function localPath(location: string): string {
  if (location.startsWith('file:')) return path.resolve(location.replace(/^file:(\/\/)?/, ''))
  if (location.startsWith('/')) return location
  throw new MillraceError('config.unsupported', `the Iceberg sink writes local folders only, not ${location.split(':')[0]}: locations`, {
    fix: 'set warehouse to a folder, and let the REST catalog keep its tables under file://',
  })
}

function storeError(error: unknown, doing: string): MillraceError {
  const code = (error as NodeJS.ErrnoException).code ?? ''
  if (['EACCES', 'EPERM', 'EROFS'].includes(code)) {
    return new MillraceError('sink.forbidden', `cannot ${doing}: ${code}`, {
      cause: error,
      fix: 'give the user that runs millrace the right to write the warehouse folder',
    })
  }
  return new MillraceError('sink.unreachable', `cannot ${doing}: ${code || String(error)}`, { cause: error })
}

/** Writes a file and syncs it; its folder is synced by {@link syncFolder}. @throws sink.unreachable, sink.forbidden */
export async function writeFileDurably(location: string, bytes: Uint8Array): Promise<void> {
  const file = localPath(location)
  try {
    let handle: FileHandle
    try {
      handle = await open(file, 'wx')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      await mkdir(path.dirname(file), { recursive: true })
      handle = await open(file, 'wx')
    }
    try {
      await handle.writeFile(bytes)
      await handle.datasync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    await rm(file, { force: true }).catch(() => {})
    throw storeError(error, `write ${location}`)
  }
}

/** Makes the names in a folder durable. */
export async function syncFolder(location: string): Promise<void> {
  try {
    const handle = await open(localPath(location), 'r')
    try {
      await handle.sync()
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw storeError(error, `sync ${location}`)
  }
}

/** Replaces a small file whole, without waiting for the disk. */
export async function replaceFile(location: string, text: string): Promise<void> {
  const file = localPath(location)
  const fresh = `${file}.${randomUUID()}`
  try {
    const handle = await open(fresh, 'wx')
    await handle.writeFile(text)
    await handle.close()
    await rename(fresh, file)
  } catch (error) {
    await rm(fresh, { force: true }).catch(() => {})
    throw storeError(error, `replace ${location}`)
  }
}

/** @throws sink.unreachable */
export async function readWholeFile(location: string): Promise<Buffer> {
  try {
    return await readFile(localPath(location))
  } catch (error) {
    throw storeError(error, `read ${location}`)
  }
}

/** @throws sink.unreachable */
export async function openFile(location: string): Promise<RandomAccessFile> {
  try {
    const handle = await open(localPath(location), 'r')
    const { size } = await handle.stat()
    return {
      byteLength: size,
      async slice(from, to = size) {
        const bytes = new ArrayBuffer(to - from)
        const { bytesRead } = await handle.read(new Uint8Array(bytes), 0, to - from, from)
        if (bytesRead !== to - from) throw new MillraceError('sink.unreachable', `${location} is shorter than expected`)
        return bytes
      },
      [Symbol.asyncDispose]: () => handle.close(),
    }
  } catch (error) {
    throw storeError(error, `open ${location}`)
  }
}

/** Best effort: what is left is an orphan, found again at the next start. */
export async function removeFiles(locations: Iterable<string>): Promise<void> {
  for (const location of locations) await rm(localPath(location), { force: true }).catch(() => {})
}

/** Files of one folder with their age in milliseconds; empty when there is no such folder. */
export async function listFolder(location: string): Promise<readonly { readonly location: string; readonly name: string; readonly ageMs: number }[]> {
  const folder = localPath(location)
  let names: string[]
  try {
    names = await readdir(folder)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw storeError(error, `list ${location}`)
  }
  const files: { location: string; name: string; ageMs: number }[] = []
  for (const name of names) {
    const facts = await stat(path.join(folder, name)).catch(() => null)
    if (facts?.isFile()) files.push({ location: `${location}/${name}`, name, ageMs: Date.now() - facts.mtimeMs })
  }
  return files
}
