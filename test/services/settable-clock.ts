/** A clock that a test sets for the processes that it starts, by the library of Debian's package libfaketime. */
import { chmodSync, copyFileSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { debianFiles, debianSkipReason } from './debian-tree.ts'

/** Why clocks cannot be set here, or null. */
export function clockSkipReason(): string | null {
  return debianSkipReason() ?? (release() === null ? 'the release of Debian is not known' : null)
}

/** The library must be of this machine's release: it runs with the machine's own libc. */
function release(): string | null {
  return /^VERSION_CODENAME=(\w+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1] ?? null
}

export class SettableClock {
  /** For a process that goes by this clock. Time that passes is measured by another clock, as on a machine whose time is set. */
  readonly env: Readonly<Record<string, string>>
  readonly #file: string

  private constructor(file: string, library: string) {
    this.#file = file
    this.env = { LD_PRELOAD: library, FAKETIME_TIMESTAMP_FILE: file, FAKETIME_CACHE_DURATION: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' }
  }

  /** @param file is made, and others beside it; processes of other users must reach them */
  static async make(file: string): Promise<SettableClock> {
    const suite = release()!
    const root = await debianFiles(`libfaketime-${suite}`, suite, ['libfaketime'])
    // the cache may be where only its owner can reach
    const library = `${file}.so`
    copyFileSync(path.join(root, 'usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1'), library)
    chmodSync(library, 0o755)
    const clock = new SettableClock(file, library)
    clock.set(0)
    return clock
  }

  /** So many seconds beside the machine's clock; a process looks every second. */
  set(seconds: number): void {
    const next = `${this.#file}.next`
    writeFileSync(next, `${seconds < 0 ? '' : '+'}${seconds}\n`)
    chmodSync(next, 0o644)
    renameSync(next, this.#file)
  }
}
