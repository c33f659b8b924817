import { type FileHandle, open, readdir, stat } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError, type PluginContext } from '../../core/plugin.ts'
import { type FilesConfig, type TableRule, tableOf } from './files-config.ts'
import { endOfLines, type FileIdentity, type FileMark, hashOf, holds, type NextPiece, type Piece, readAt, TrackedFile } from './tracked-file.ts'

const COMPRESSED = /\.(gz|zst|bz2|xz|zip|lz4|br)$/
/** A file that looks like the copy of another is left alone until it has not grown for so long: copytruncate empties the original right after. */
const COPY_MS = 3000
/** At a start, files that are missing are looked for so often, with this time in between. */
const RENAME_LOOKS = 3
const RENAME_MS = 50
/** A file that was renamed away or deleted is read on until it has not grown for so long. */
const GONE_MS = 5000

interface Seen extends FileIdentity {
  readonly name: string
  readonly table: string
  readonly size: number
}

/** The files of a folder, told apart whatever their names, and how far each is captured. Not reentrant. */
export class FileSet implements AsyncDisposable {
  readonly #config: FilesConfig
  readonly #context: Pick<PluginContext, 'logger' | 'node'>
  readonly #match: ReturnType<typeof tableOf>
  /** In the order in which they are read. */
  readonly #files: TrackedFile[] = []
  /** Files that may be copies: their size, and since when they have it. */
  readonly #copies = new Map<string, { readonly size: number; readonly since: number }>()
  readonly #told = new Set<string>()
  readonly #rules = new Map<string, TableRule>()
  /** Bytes of files that are gone. */
  #forgotten = 0

  constructor(config: FilesConfig, context: Pick<PluginContext, 'logger' | 'node'>) {
    this.#config = config
    this.#context = context
    this.#match = tableOf(config)
  }

  get files(): readonly TrackedFile[] {
    return this.#files
  }

  get forgotten(): number {
    return this.#forgotten
  }

  /** Bytes captured of all files there ever were: what commits are counted in. */
  get total(): number {
    return this.#files.reduce((sum, { at }) => sum + at, this.#forgotten)
  }

  /** Tables of which a file was seen, with their rules. */
  get rules(): ReadonlyMap<string, TableRule> {
    return this.#rules
  }

  /** Takes the files as they are, captured up to their last complete lines. */
  async begin(): Promise<void> {
    for (const seen of await this.#look()) {
      const handle = await this.#open(seen.name)
      if (handle === null) continue
      const at = await endOfLines(handle, seen.size)
      this.#files.push(await TrackedFile.open({ ...seen, identity: seen, key: keyOf(seen), at }, handle))
    }
  }

  /**
   * Finds the files of an offset again, also the one with the lines that were to be captured next. @throws source.history_lost when lines that were not captured
   * are gone
   */
  async resume(marks: readonly FileMark[], forgotten: number, next: NextPiece | null): Promise<void> {
    let missing = await this.#find(marks, next)
    // a file that is renamed while the folder is read is seen under neither name
    for (let looks = 1; missing.length > 0 && looks < RENAME_LOOKS; looks++) {
      for (const file of this.#files.splice(0)) await file.close()
      await delay(RENAME_MS)
      missing = await this.#find(marks, next)
    }
    // the same inode with other bytes was emptied in place, whatever came of its last lines
    const lost = missing.filter(({ mark, isThere }) => (isThere && mark.at > 0) || mark.behind === true)
    if (lost.length > 0) throw this.#historyLost(lost.map(({ mark }) => mark))
    this.#forgotten = forgotten
    for (const { mark } of missing) {
      this.#context.logger.warn({ table: mark.table, file: mark.key, at: mark.at }, 'a file is gone that was captured to its end when it was last seen')
      this.#forgotten += mark.at
    }
  }

  /** @returns those that are not found; `isThere`: something else is in their place */
  async #find(marks: readonly FileMark[], next: NextPiece | null): Promise<readonly { readonly mark: FileMark; readonly isThere: boolean }[]> {
    const seen = await this.#look()
    const free = new Set(seen)
    const missing: { readonly mark: FileMark; readonly isThere: boolean }[] = []
    for (const mark of marks) {
      const same = seen.find((one) => isSame(one, mark))
      const planned = next?.key === mark.key ? next : null
      const found =
        (await this.#take(mark, planned, same === undefined ? [] : [same])) ??
        (await this.#take(
          mark,
          planned,
          seen.filter((one) => free.has(one) && one !== same),
        ))
      if (found === null) missing.push({ mark, isThere: same !== undefined })
      else free.delete(found)
    }
    return missing
  }

  async #take(mark: FileMark, planned: NextPiece | null, candidates: readonly Seen[]): Promise<Seen | null> {
    const isTold = mark.at > 0 || planned?.hash !== undefined
    for (const one of candidates) {
      if (one.size < (planned?.to ?? mark.at) || one.table !== mark.table || (!isTold && !isSame(one, mark))) continue
      const handle = await this.#open(one.name)
      if (handle === null) continue
      if ((await holds(handle, mark)) && (planned?.hash === undefined || hashOf(await readAt(handle, mark.at, planned.to - mark.at)) === planned.hash)) {
        this.#files.push(await TrackedFile.open({ ...one, identity: one, key: mark.key, at: mark.at }, handle))
        return one
      }
      await handle.close()
    }
    return null
  }

  /** Looks at the folder: what grew, was renamed, was emptied, came or went. @throws source.history_lost when lines may be gone that were not captured */
  async scan(): Promise<void> {
    let emptied = await this.#compare(await this.#look())
    // a copy that was made while the folder was read is there now
    if (emptied.length > 0) emptied = await this.#compare(await this.#look())
    if (emptied.length > 0) throw this.#historyLost(emptied.map((file) => file.mark()))
  }

  /** @returns files that were emptied, and whose bytes are nowhere else */
  async #compare(seen: readonly Seen[]): Promise<readonly TrackedFile[]> {
    const free = new Set(seen)
    const emptied: TrackedFile[] = []
    const emptiedInPlace = new Set<Seen>()
    const now = performance.now()
    for (const file of this.#files) {
      const same = seen.find((one) => isSame(one, file.identity))
      if (same === undefined) {
        file.goneSince ??= now
        continue
      }
      if (await file.isIntact(same.size)) {
        free.delete(same)
        file.name = same.name
        file.size = same.size
        file.goneSince = null
      } else {
        emptied.push(file)
        emptiedInPlace.add(same)
      }
    }
    const lost: TrackedFile[] = []
    for (const file of emptied) if (!(await this.#moveToCopy(file, free, emptiedInPlace))) lost.push(file)
    if (lost.length > 0) return lost
    await this.#forget(free, now)
    for (const one of [...free].sort(byAge)) if (emptiedInPlace.has(one) || (one.size > 0 && !(await this.#mayBeCopy(one, now)))) await this.#add(one)
    return []
  }

  async #moveToCopy(file: TrackedFile, free: Set<Seen>, emptied: ReadonlySet<Seen>): Promise<boolean> {
    for (const one of free) {
      if (emptied.has(one) || one.size < file.at || one.table !== file.table) continue
      const handle = await this.#open(one.name)
      if (handle === null) continue
      if (await holds(handle, file.mark())) {
        this.#context.logger.info({ table: file.table, file: file.name, copy: one.name }, 'a file was emptied: its last lines are read from its copy')
        await file.moveTo(handle, identityOf(one), one.name, one.size)
        free.delete(one)
        return true
      }
      await handle.close()
    }
    return false
  }

  /** Lets go of files that are gone, once they are read to their end and do not grow any more; one that came back elsewhere goes on there. */
  async #forget(free: Set<Seen>, now: number): Promise<void> {
    for (const file of [...this.#files]) {
      if (file.goneSince === null) continue
      if (file.at > 0 && (await this.#moveToCopy(file, free, new Set()))) continue
      const before = file.size
      if ((await file.measure()) !== before) file.goneSince = now
      if (now - file.goneSince < GONE_MS) continue
      if ((await file.lines(file.at, file.size)) !== null) continue
      if (file.behind)
        this.#context.logger.warn({ table: file.table, file: file.name, at: file.at }, 'a file is gone whose last line has no end: it was no row')
      this.#files.splice(this.#files.indexOf(file), 1)
      this.#forgotten += file.at
      await file.close()
    }
  }

  async #mayBeCopy(one: Seen, now: number): Promise<boolean> {
    const known = this.#copies.get(one.ino)
    const since = known?.size === one.size ? known.since : now
    this.#copies.set(one.ino, { size: one.size, since })
    const like = this.#files.filter(({ table, size, at }) => table === one.table && size >= one.size && at > 0)
    if (like.length === 0 || now - since >= COPY_MS) return false
    const handle = await this.#open(one.name)
    if (handle === null) return true
    const head = await readAt(handle, 0, Math.min(one.size, 1024))
    await handle.close()
    return like.some((file) => file.beginsLike(head))
  }

  async #add(one: Seen): Promise<void> {
    const handle = await this.#open(one.name)
    if (handle === null) return
    this.#copies.delete(one.ino)
    const key = this.#files.some((file) => file.key === keyOf(one)) ? `${keyOf(one)}-${this.total}` : keyOf(one)
    this.#files.push(await TrackedFile.open({ ...one, identity: identityOf(one), key, at: 0 }, handle))
  }

  /** The next complete lines of a table: of its oldest file that has some. */
  async next(table: string): Promise<Piece | null> {
    for (const file of this.#files) {
      if (file.table !== table) continue
      // the folder may have been looked at before the writer went on to the next file
      if (!file.behind) await file.measure()
      const piece = file.behind ? await file.lines(file.at, file.size) : null
      if (piece !== null) return piece
    }
    return null
  }

  async #look(): Promise<readonly Seen[]> {
    const { directory } = this.#config
    let names: readonly string[]
    try {
      names = await readdir(directory)
    } catch (cause) {
      throw unreadable(directory, cause)
    }
    const seen: Seen[] = []
    for (const name of names) {
      const found = this.#match(name)
      if (found === null) continue
      if (COMPRESSED.test(name)) {
        if (!this.#told.has(name)) this.#context.logger.warn({ file: name }, 'compressed files are not read')
        this.#told.add(name)
        continue
      }
      const facts = await stat(path.join(directory, name), { bigint: true }).catch(() => null)
      if (facts === null || !facts.isFile()) continue
      this.#rules.set(found.table, found.rule)
      seen.push({ name, table: found.table, size: Number(facts.size), ino: facts.ino.toString(36), born: facts.birthtimeNs.toString(36) })
    }
    return seen.sort(byAge)
  }

  async #open(name: string): Promise<FileHandle | null> {
    try {
      return await open(path.join(this.#config.directory, name))
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw unreadable(path.join(this.#config.directory, name), cause)
    }
  }

  #historyLost(marks: readonly FileMark[]): MillraceError {
    const which = marks.map(({ table, key, at }) => `${table} (file ${key}, captured up to byte ${at})`).join(', ')
    return new MillraceError('source.history_lost', `files were emptied, rewritten or deleted, and lines that were not captured may be gone: ${which}`, {
      fix: `millrace run FILE --resnapshot ${this.#context.node}; rotate by renaming, or keep the copy under a name that the source's patterns match`,
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files.splice(0)) await file.close()
  }
}

function unreadable(what: string, cause: unknown): MillraceError {
  const { code } = cause as NodeJS.ErrnoException
  if (code === 'EACCES' || code === 'EPERM')
    return new MillraceError('source.forbidden', `${what} may not be read`, { cause, fix: 'grant it to the user of this process' })
  if (code === 'ENOENT' || code === 'ENOTDIR')
    return new MillraceError('source.unprepared', `${what} is no folder`, {
      cause,
      fix: 'make it, or correct `directory`; a path from the mesh file on begins with ./',
    })
  return new MillraceError('source.unreachable', `${what} cannot be read: ${code}`, { cause, fix: 'look at the disk' })
}

const isSame = (a: FileIdentity, b: FileIdentity) => a.ino === b.ino && a.born === b.born
const keyOf = ({ ino, born }: FileIdentity) => `${ino}-${born}`
const identityOf = ({ ino, born }: FileIdentity): FileIdentity => ({ ino, born })

function byAge(a: Seen, b: Seen): number {
  const [first, second] = [Number.parseInt(a.born, 36), Number.parseInt(b.born, 36)]
  return first - second || (a.name < b.name ? -1 : 1)
}
