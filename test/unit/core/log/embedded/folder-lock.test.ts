import { mkdirSync, mkdtempSync, rmdirSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { expect, test } from 'vitest'
import { FolderLock } from '../../../../../core/log/embedded/folder-lock.ts'

test('a lock whose holder cannot be written down, as on a full disk, is let go: the next try has it', () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-lock-'))
  try {
    mkdirSync(path.join(dir, 'writer.pid'))
    expect(() => FolderLock.acquire(dir)).toThrow(expect.objectContaining({ code: 'EISDIR' }))
    rmdirSync(path.join(dir, 'writer.pid'))
    FolderLock.acquire(dir)[Symbol.dispose]()
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})
