/** Disks of a few megabytes, for tests that fill them. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmdirSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

const mounted: string[] = []

/** Why no small disk can be had here; null: it can. Leaves nothing mounted. */
export function smallDiskSkipReason(): string | null {
  if (process.platform !== 'linux') return 'a small disk is made with tmpfs, which is of Linux'
  if (process.getuid?.() !== 0) return 'only root may mount a small disk'
  const at = mkdtempSync(path.join(os.tmpdir(), 'millrace-small-disk-'))
  try {
    mount(at, 1)
    execFileSync('umount', ['-l', at])
    return null
  } catch {
    return 'mounting is not allowed here'
  } finally {
    rmdirSync(at)
  }
}

/** Mounts one of so many megabytes at `at`. Belongs into `beforeAll`, {@link unmountSmallDisks} into `afterAll`: no disk stays when no test is run. */
export function mountSmallDisk(at: string, megabytes: number): void {
  mkdirSync(at, { recursive: true })
  mount(at, megabytes)
  mounted.push(at)
}

export function unmountSmallDisks(): void {
  for (const at of mounted.splice(0)) execFileSync('umount', ['-l', at])
}

function mount(at: string, megabytes: number): void {
  execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', at], { stdio: 'ignore' })
}
