import { MillraceError } from '../../core/errors.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { pause } from '../../core/retry.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { loadCode } from '../../core/runtime/open-log.ts'
import { runMesh } from '../../core/runtime/runtime.ts'
import { LOG_HELP, LOG_OPTIONS, openCliLogger } from './cli-logger.ts'
import { type Command, type CommandInput, flag, textOption } from './command.ts'
import { beginAgainIfCompiled } from './compile-cache.ts'
import { LiveScreen, wantsColor } from './live-screen.ts'
import { RateWindow, renderStanding, renderStatus, statusLine } from './live-view.ts'

const REDRAW_MS = 500
const LOG_STATUS_MS = 5000

export const runCommand: Command = {
  name: 'run',
  summary: 'Run a mesh until it is stopped',
  help: `millrace run FILE [options]

Captures every source into the log and keeps every sink equal to it. What exists is read first, beside the stream of changes. Stop it with Ctrl-C (a
second one stops at once), kill it, start it again: it goes on where it was, nothing lost, nothing doubled. In a terminal it shows what moves;
elsewhere it logs JSON lines to stderr.

Examples:
  millrace run shop.mesh.yaml
  millrace run shop.mesh.yaml --port 9464               metrics, health and status on a fixed port
  millrace run shop.mesh.yaml --until-idle 2            copy what is there, then end: for scripts and tests
  millrace run shop.mesh.yaml --resnapshot shop         read all tables of a source again, after its history was lost
  millrace run shop.mesh.yaml --resnapshot shop/public.orders    only this one, which may be parked

Options:
  --port PORT         for /metrics, /status, /health/live, /health/ready; default any free port
  --host ADDRESS      to listen on; default 127.0.0.1
  --until-idle SECS   end when snapshots are done and nothing has moved for so long
  --resnapshot NODE   forget where a source stood and read its tables anew; NODE/TABLE: read one table anew
  --stale-after SECS  not ready when a node has not moved for so long while it had work; default 60
  --no-view           log lines instead of the live view
${LOG_HELP}`,
  options: {
    port: { type: 'string' },
    host: { type: 'string' },
    'until-idle': { type: 'string' },
    resnapshot: { type: 'string' },
    'stale-after': { type: 'string' },
    'no-view': { type: 'boolean' },
    ...LOG_OPTIONS,
  },
  arguments: [1, 1],
  async run(input) {
    const { io } = input
    const mesh = await loadMesh(input.arguments[0]!, input.plugins)
    const secrets = input.secrets(mesh.dir)
    await loadCode({ mesh, secrets })
    beginAgainIfCompiled()
    const screen = io.stderr.isTTY === true && !flag(input, 'no-view') && !flag(input, 'json') ? new LiveScreen(io.stderr) : null
    await using log = openCliLogger(input, {
      redact: (text) => secrets.redact(text),
      ...(screen === null ? {} : { printLine: onceInARow((line) => screen.log(line)) }),
    })
    const { logger } = log
    const rates = new RateWindow()
    let latest: MeshStatus | null = null
    const show = (): void => {
      if (latest === null) return
      const at = { ...latest, at: Date.now() }
      if (screen === null) logger.info({ ready: at.ready }, statusLine(at, rates.add(at)))
      else screen.draw(renderStatus(at, rates.add(at), { width: screen.width, color: wantsColor(io) }))
    }
    const ended = new AbortController()
    const showing = repeat(show, screen === null ? LOG_STATUS_MS : REDRAW_MS, ended.signal)
    const port = number(input, 'port', 0, 65_535)
    const idleSeconds = number(input, 'until-idle', 1, 86_400)
    const staleSeconds = number(input, 'stale-after', 1, 86_400)
    const host = textOption(input, 'host')
    const resnapshot = textOption(input, 'resnapshot')
    try {
      const result = await runMesh(mesh, {
        secrets,
        logger,
        signal: io.signal,
        onStatus: (status) => {
          latest = status
        },
        ...(host === undefined ? {} : { host }),
        ...(port === undefined ? {} : { port }),
        ...(idleSeconds === undefined ? {} : { untilIdleMs: idleSeconds * 1000 }),
        ...(staleSeconds === undefined ? {} : { staleMs: staleSeconds * 1000 }),
        ...(resnapshot === undefined ? {} : { resnapshot }),
      })
      latest = result.status
      ended.abort()
      await showing
      show()
      screen?.end()
      io.stderr.write(renderStanding(result.status))
      const paused = result.status.nodes.filter(({ pausedSince }) => pausedSince !== null).map(({ node }) => node)
      const through = paused.length === 0 ? 'everything is through' : `everything is through but for what is paused: ${paused.join(', ')}`
      const text = `${result.outcome === 'failed' ? 'ended: no source is left that can go on' : result.outcome === 'idle' ? `idle: ${through}` : 'stopped'}\n`
      return { exitCode: result.exitCode, result, text }
    } finally {
      ended.abort()
      screen?.end()
    }
  },
}

/** What is tried again and again says the same each time: the view shows that it goes on. */
function onceInARow(print: (line: string) => void): (line: string) => void {
  let last = ''
  return (line) => {
    const said = line.slice('00:00:00 '.length)
    if (said !== last) print(line)
    last = said
  }
}

async function repeat(work: () => void, everyMs: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    await pause(everyMs, signal)
    if (signal.aborted) return
    work()
  }
}

function number(input: CommandInput, name: string, least: number, most: number): number | undefined {
  const text = textOption(input, name)
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() === '' || !Number.isFinite(value) || value < least || value > most) {
    throw new MillraceError('config.invalid', `--${name} ${text} is no number from ${least} to ${most}`, {
      fix: `millrace run --help says what --${name} means`,
    })
  }
  return value
}
