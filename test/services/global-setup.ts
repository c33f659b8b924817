import { chmodSync, mkdtempSync, readdirSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { endSharedServices, RUN_DIR_ENV } from './shared-service.ts'

export default function setup(): () => Promise<void> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-test-'))
  chmodSync(dir, 0o755)
  process.env[RUN_DIR_ENV] = dir
  return () => endSharedServices(dir, readdirSync(dir))
}
