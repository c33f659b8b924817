/** Child of `decode`: rows of the binlog as objects, read by @vlasky/zongji. */
import type { EventEmitter } from 'node:events'
import path from 'node:path'
import { DecodeMeter, type DecodeTask } from '../decode.ts'

interface ZongJi extends EventEmitter {
  start(options: Readonly<Record<string, unknown>>): void
  stop(): void
}

const task = JSON.parse(process.argv[2]!) as DecodeTask
const meter = new DecodeMeter(task.rows)
const { default: ZongJi } = (await import(path.join(task.zongji, 'node_modules/@vlasky/zongji/index.js'))) as {
  default: new (options: Readonly<Record<string, unknown>>) => ZongJi
}
const reader = new ZongJi({ host: task.host, port: task.port, user: 'cdc', password: 'cdc' })
reader.on('error', (error: Error) => {
  throw error
})
reader.on('binlog', ({ rows }: { rows?: readonly unknown[] }) => {
  if (rows === undefined || !meter.count(rows.length)) return
  meter.print()
  process.exit(0)
})
reader.start({ gtidSet: task.gtids, serverId: 77, includeEvents: ['tablemap', 'writerows'], includeSchema: { bench: ['bench'] } })
