import { chmodSync } from 'node:fs'

/** Runs `work` as a user who may not read the file, or enter the folder: only in a process of its own, since a whole process of root is another user meanwhile. */
export function shutOut(path: string, work: () => void): void {
  const isRoot = process.geteuid!() === 0
  chmodSync(path, isRoot ? 0o700 : 0)
  if (isRoot) process.seteuid!(65_534)
  try {
    work()
  } finally {
    if (isRoot) process.seteuid!(0)
    chmodSync(path, 0o700)
  }
}
