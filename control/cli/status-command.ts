import path from 'node:path'
import { MillraceError } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { pause } from '../../core/retry.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { type Command, type CommandIo, flag } from './command.ts'
import { LiveScreen, wantsColor } from './live-screen.ts'
import { RateWindow, renderStatus } from './live-view.ts'
import { askRunning } from './running-mesh.ts'

const WATCH_MS = 1000
const RATE_MS = 500

export const statusCommand: Command = {
  name: 'status',
  summary: 'Show the mesh that another process runs',
  help: `millrace status [FILE] [--watch]

Asks the process that runs the mesh of FILE; without FILE, the one whose state lies in ./.millrace. Exit code 0 when it is ready, 1 when it is not, 3
when it does not run.

Examples:
  millrace status shop.mesh.yaml
  millrace status shop.mesh.yaml --watch                redraw every second
  millrace status shop.mesh.yaml --json | jq '.result.nodes[] | {node, state, lagMs}'

Options:
  --watch   go on until Ctrl-C`,
  options: { watch: { type: 'boolean' } },
  arguments: [0, 1],
  async run(input) {
    const { io } = input
    const file = input.arguments[0]
    const dataDir = file === undefined ? path.join(io.cwd, '.millrace') : (await loadMesh(file, input.plugins)).dataDir
    const subject = file ?? dataDir
    const rates = new RateWindow()
    let status = await ask(dataDir, subject)
    if (flag(input, 'watch')) {
      const screen = new LiveScreen(io.stderr)
      while (!io.signal.aborted) {
        screen.draw(renderStatus(status, rates.add(status), { width: screen.width, color: wantsColor(io) }))
        await pause(WATCH_MS, io.signal)
        status = await ask(dataDir, subject)
      }
      return { exitCode: 0, result: status, text: null }
    }
    rates.add(status)
    await pause(RATE_MS, io.signal)
    status = await ask(dataDir, subject)
    const text = renderStatus(status, rates.add(status), { width: widthOf(io), color: false }).join('\n')
    return { exitCode: status.ready ? 0 : 1, result: status, text }
  },
}

async function ask(dataDir: string, subject: string): Promise<MeshStatus> {
  const status = await askRunning(dataDir)
  if (status === null) throw new MillraceError('log.unreachable', `${subject} is not running`, { fix: 'start it with millrace run FILE' })
  return status
}

function widthOf(io: CommandIo): number {
  return io.stdout.isTTY === true ? (io.stderr.columns ?? 80) : 200
}
