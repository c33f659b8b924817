import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { diskError } from '../capture/disk-error.ts'
import { MillraceError } from '../errors.ts'

/** How another process finds a running mesh: written beside its state. */
export interface RunningMesh {
  readonly mesh: string
  readonly pid: number
  readonly host: string
  readonly port: number
  readonly startedAt: number
}

const LOCK_FILE = 'lock.db'
const RUN_FILE = 'running.json'
const PAUSED_FILE = 'paused.json'
const WANTED_FILE = 'wanted.json'

/**
 * A mesh's data folder, held by one process. The lock is SQLite's own file lock: the system drops it with the process, also after kill -9, so a stale
 * one cannot exist.
 */
export class DataFolder implements Disposable {
  readonly dir: string
  readonly #lock: DatabaseSync

  /** @throws log.locked naming the process that holds it, log.full, config.invalid when the folder cannot be made or locked */
  constructor(dir: string) {
    this.dir = dir
    makeFolder(dir, 'the data folder', 'make room there, or set dataDir to a folder that can be written')
    let lock: DatabaseSync | null = null
    try {
      lock = new DatabaseSync(path.join(dir, LOCK_FILE), { timeout: 0 })
      // EXCLUSIVE is taken with the first write and kept until close
      lock.exec('pragma locking_mode = exclusive; pragma journal_mode = delete; begin exclusive; create table if not exists held (pid integer); commit')
      this.#lock = lock
    } catch (cause) {
      lock?.close()
      throw lockError(dir, cause)
    }
  }

  /** @throws log.full; so do the others that write */
  announce(running: RunningMesh): void {
    const file = path.join(this.dir, RUN_FILE)
    try {
      writeFileSync(`${file}.new`, JSON.stringify(running), { mode: 0o600 })
      renameSync(`${file}.new`, file)
    } catch (cause) {
      throw diskError(cause, `${file} cannot be written`)
    }
  }

  /** Nodes that an operator has paused, with since when (ISO 8601): they stay so when the mesh starts again. @throws config.invalid when the file is damaged */
  get paused(): ReadonlyMap<string, string> {
    return this.#load<string>(PAUSED_FILE, 'names the paused nodes', 'pause again what should be')
  }

  /** Durable when it returns. @returns since when it is paused, which may be earlier */
  pause(node: string): string {
    const since = this.paused.get(node) ?? new Date().toISOString()
    this.#store(PAUSED_FILE, new Map([...this.paused, [node, since]]))
    return since
  }

  /** Durable when it returns. @returns false when it was not paused */
  resume(node: string): boolean {
    const paused = new Map(this.paused)
    if (!paused.delete(node)) return false
    this.#store(PAUSED_FILE, paused)
    return true
  }

  /** Tables that an operator wants to have read again, by source, until the log knows it; null: all of the source. @throws config.invalid when the file is damaged */
  get wanted(): ReadonlyMap<string, readonly (string | null)[]> {
    return this.#load<readonly (string | null)[]>(WANTED_FILE, 'names the tables to be read again', 'ask again for what should be')
  }

  /** Durable when it returns. */
  want(node: string, table: string | null): void {
    const { wanted } = this
    this.#store(WANTED_FILE, new Map([...wanted, [node, [...new Set(wanted.get(node)).add(table)]]]))
  }

  /** The log knows it. Durable when it returns. */
  grant(node: string, table: string | null): void {
    const wanted = new Map(this.wanted)
    const tables = wanted.get(node)
    if (tables === undefined || !tables.includes(table)) return
    const left = tables.filter((one) => one !== table)
    if (left.length > 0) wanted.set(node, left)
    else wanted.delete(node)
    this.#store(WANTED_FILE, wanted)
  }

  #load<T>(name: string, what: string, again: string): ReadonlyMap<string, T> {
    const file = path.join(this.dir, name)
    try {
      return new Map(Object.entries(JSON.parse(readFileSync(file, 'utf8')) as Record<string, T>))
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return new Map()
      throw new MillraceError('config.invalid', `${file}, which ${what}, cannot be read`, { cause, fix: `remove it, and ${again}` })
    }
  }

  /** @throws log.full, config.invalid when the file cannot be written */
  #store(name: string, entries: ReadonlyMap<string, unknown>): void {
    const file = path.join(this.dir, name)
    try {
      this.#replace(file, JSON.stringify(Object.fromEntries(entries)))
    } catch (cause) {
      throw diskError(cause, `${file} cannot be written`)
    }
  }

  #replace(file: string, text: string): void {
    const fresh = openSync(`${file}.new`, 'w', 0o600)
    try {
      writeFileSync(fresh, text)
      fsyncSync(fresh)
    } finally {
      closeSync(fresh)
    }
    renameSync(`${file}.new`, file)
    // the name lasts once the folder is on disk; Windows opens no folder, and needs no such thing
    if (process.platform === 'win32') return
    const folder = openSync(this.dir, 'r')
    try {
      fsyncSync(folder)
    } finally {
      closeSync(folder)
    }
  }

  /** A node's own folder, made when absent. */
  nodeDir(node: string): string {
    const dir = nodeDirOf(this.dir, node)
    makeFolder(dir, 'the folder')
    return dir
  }

  [Symbol.dispose](): void {
    rmSync(path.join(this.dir, RUN_FILE), { force: true })
    this.#lock.close()
  }
}

function makeFolder(dir: string, what: string, fix?: string): void {
  try {
    mkdirSync(dir, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw diskError(cause, `${what} ${dir} cannot be made`, fix)
  }
}

/** Why a data folder cannot be locked, by SQLite's result code: busy and locked are a holder, full is the disk. */
function lockError(dir: string, cause: unknown): MillraceError {
  const result = Number((cause as { errcode?: unknown }).errcode) & 0xff
  if (result === 13) return new MillraceError('log.full', `no room to lock the data folder ${dir}`, { cause, fix: 'free disk space' })
  if (result !== 5 && result !== 6) {
    const fix = 'let Millrace write to the folder, on a disk whose file system has locks; or set dataDir to another one'
    return new MillraceError('config.invalid', `the data folder ${dir} cannot be locked: ${(cause as Error).message}`, { cause, fix })
  }
  const holder = readRunning(dir)
  const who = holder === null ? 'another process' : `process ${holder.pid}`
  return new MillraceError('log.locked', `${who} runs a mesh on ${dir}`, {
    cause,
    fix: 'stop it, or let a command that works on it end; millrace status FILE shows a mesh that runs',
  })
}

/** Where a node of the mesh with this data folder keeps its own files. */
export function nodeDirOf(dataDir: string, node: string): string {
  return path.join(dataDir, 'nodes', node)
}

/** What the last process that ran on `dir` announced; it may have died since. Null when none did. */
export function readRunning(dir: string): RunningMesh | null {
  try {
    return JSON.parse(readFileSync(path.join(dir, RUN_FILE), 'utf8')) as RunningMesh
  } catch {
    return null
  }
}
