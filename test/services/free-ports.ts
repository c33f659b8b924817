import { mkdirSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { RUN_DIR_ENV } from './shared-service.ts'

/** Below the ports that the system gives to whoever asks for any, so that nobody gets one while its server starts, or is down for a while. */
const FIRST = 10_000
const COUNT = 6_000

/** So many ports that are free, all different, and given to nobody else in this run of the tests; benchmarks have none, and start servers one by one. */
export async function freePorts(count: number): Promise<number[]> {
  const run = process.env[RUN_DIR_ENV]
  const taken = run === undefined ? null : path.join(run, 'ports')
  if (taken !== null) mkdirSync(taken, { recursive: true })
  const ports: number[] = []
  // each process begins elsewhere, also those of other runs
  const offset = Math.floor(Math.random() * COUNT)
  for (let n = 0; n < COUNT && ports.length < count; n++) {
    const port = FIRST + ((offset + n) % COUNT)
    if ((await isFree(port)) && (taken === null || take(path.join(taken, String(port))))) ports.push(port)
  }
  if (ports.length < count) throw new Error(`no ${count} free ports from ${FIRST} to ${FIRST + COUNT - 1}`)
  return ports
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = net.createServer()
    server.once('error', () => resolve(false))
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
  })
}

function take(file: string): boolean {
  try {
    writeFileSync(file, '', { flag: 'wx' })
    return true
  } catch {
    return false
  }
}
