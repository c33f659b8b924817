/** Local folders; locations are `file://` and the absolute path, as PyIceberg and Java write them. */
import { randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { MillraceError } from '../../core/plugin.ts'
import type { FileStore, ListedFile, RandomAccessFile } from './file-store.ts'

export function localPath(location: string): string {
  return path.resolve(location.replace(/^file:(\/\/)?/, ''))
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

async function createFile(file: string): Promise<FileHandle> {
  try {
    return await open(file, 'wx')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    await mkdir(path.dirname(file), { recursive: true })
    return await open(file, 'wx')
  }
}

export const localStore: FileStore = {
  async write(location, bytes) {
    const file = localPath(location)
    try {
      const handle = await createFile(file)
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
  },

  async syncFolder(location) {
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
  },

  async replace(location, text) {
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
  },

  async read(location) {
    try {
      return await readFile(localPath(location))
    } catch (error) {
      throw storeError(error, `read ${location}`)
    }
  },

  async open(location): Promise<RandomAccessFile> {
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
  },

  async remove(locations) {
    const failures: MillraceError[] = []
    for (const location of locations) await rm(localPath(location), { force: true }).catch((error) => failures.push(storeError(error, `delete ${location}`)))
    return failures
  },

  async list(location) {
    const folder = localPath(location)
    let names: string[]
    try {
      names = await readdir(folder)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
      throw storeError(error, `list ${location}`)
    }
    const files: ListedFile[] = []
    for (const name of names) {
      const facts = await stat(path.join(folder, name)).catch(() => null)
      if (facts?.isFile()) files.push({ location: `${location}/${name}`, name, ageMs: Date.now() - facts.mtimeMs })
    }
    return files
  },
}
