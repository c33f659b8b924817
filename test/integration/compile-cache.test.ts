import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, expect, test } from 'vitest'
import { readRunning } from '../../core/runtime/data-folder.ts'
import { MeshProcess } from '../services/mesh-process.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-cache-'))
let mesh: MeshProcess | null = null
afterEach(async () => {
  await mesh?.kill()
  rmSync(dir, { recursive: true, force: true })
})

const beganAgain = (pid: number) => readFileSync(`/proc/${pid}/environ`, 'utf8').includes('MILLRACE_BEGUN_AGAIN=')

test.skipIf(!existsSync('/proc/self/environ'))(
  'a run that had to compile TypeScript begins again without the compiler, and the next one need not',
  async () => {
    const yaml =
      "mesh: cold\ndataDir: state\nlog: embedded\nsources:\n  shop: { kind: postgres, url: 'postgres://nobody@127.0.0.1:1/none', tables: [public.*] }\n"
    mesh = new MeshProcess(dir, yaml, { NODE_COMPILE_CACHE: path.join(dir, 'cache') })
    for (const isCold of [true, false]) {
      mesh.start()
      await expect.poll(() => readRunning(mesh!.dataDir)?.pid, { timeout: 120_000 }).toBe(mesh.pid)
      expect(beganAgain(mesh.pid)).toBe(isCold)
      expect(await mesh.stop()).toBe(0)
    }
  },
  600_000,
)
