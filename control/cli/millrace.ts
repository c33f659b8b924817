import { COMMANDS } from './commands.ts'
import { runCli } from './run-cli.ts'

const stop = new AbortController()
const EXIT_AT_ONCE = 130
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => {
    // what is durable stays so: stopping at once loses nothing, it only repeats a little work
    if (stop.signal.aborted) process.exit(EXIT_AT_ONCE)
    stop.abort()
  })
}
// `millrace tap … | head` closes the pipe early: that is no error
process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1))

process.exitCode = await runCli(process.argv.slice(2), COMMANDS, {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  cwd: process.cwd(),
  signal: stop.signal,
})
// a handle that someone forgot must not keep a finished command alive; unref'd, so it costs a clean end nothing
setTimeout(() => process.exit(), 2000).unref()
