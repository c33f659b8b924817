/** Disks of a few megabytes, for tests that fill them. */
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'

const mounted: string[] = []

/** Mounts one of so many megabytes at `at`, when a test file is loaded; {@link unmountSmallDisks} belongs into its `afterAll`. @returns why there is none, or null */
export function mountSmallDisk(at: string, megabytes: number): string | null {
  if (process.platform !== 'linux') return 'a small disk is made with tmpfs, which is of Linux'
  if (process.getuid?.() !== 0) return 'only root may mount a small disk'
  mkdirSync(at, { recursive: true })
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', at], { stdio: 'ignore' })
    mounted.push(at)
    return null
  } catch {
    return 'mounting is not allowed here'
  }
}

export function unmountSmallDisks(): void {
  for (const at of mounted.splice(0)) execFileSync('umount', ['-l', at])
}
