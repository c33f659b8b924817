import { type ParseArgsOptionsConfig, parseArgs } from 'node:util'
import { asMillraceError, EXIT_CODE, MillraceError } from '../../core/errors.ts'
import { nearest } from '../../core/mesh/edit-distance.ts'
import { Secrets } from '../../core/mesh/secrets.ts'
import { packageVersion } from '../../core/package-version.ts'
import { PluginCatalog } from '../../core/runtime/plugin-catalog.ts'
import type { Command, CommandInput, CommandIo } from './command.ts'

const EVERYWHERE: ParseArgsOptionsConfig = {
  help: { type: 'boolean', short: 'h' },
  json: { type: 'boolean' },
  debug: { type: 'boolean' },
}

const EVERYWHERE_HELP = `Options of every command:
  --json    one JSON document on stdout: { command, ok, result, error }
  --debug   stack traces of errors
  -h, --help

Exit codes: 0 done · 1 data, history or a bug · 2 settings or schemas · 3 something is unavailable`

/**
 * Runs one command line and returns its exit code. Results go to stdout, everything else to stderr; errors are one message with its fix, without a
 * stack. Never throws.
 */
export async function runCli(argv: readonly string[], commands: Readonly<Record<string, () => Promise<Command>>>, io: CommandIo): Promise<number> {
  const [name, ...rest] = argv
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const page = name === 'help' && rest[0] !== undefined && Object.hasOwn(commands, rest[0]) ? await commands[rest[0]]!() : undefined
    io.stdout.write(page === undefined ? overview(await Promise.all(Object.values(commands).map((load) => load()))) : `${pageOf(page)}\n`)
    return name === undefined ? 2 : 0
  }
  if (name === '--version' || name === '-v' || name === 'version') {
    io.stdout.write(`${packageVersion()}\n`)
    return 0
  }
  const secrets: Secrets[] = []
  const isJson = rest.includes('--json')
  try {
    if (!Object.hasOwn(commands, name)) throw unknownCommand(name, Object.keys(commands))
    const command = await commands[name]!()
    const input = parse(command, rest, io, secrets)
    if (input === null) {
      io.stdout.write(`${pageOf(command)}\n`)
      return 0
    }
    const { exitCode, result, text } = await command.run(input)
    if (isJson && result !== undefined) io.stdout.write(`${JSON.stringify({ command: name, ok: exitCode === 0, result, error: null })}\n`)
    else if (!isJson && text !== null && text !== '') io.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
    return exitCode
  } catch (thrown) {
    const error = asMillraceError(thrown)
    const redact = (text: string) => secrets.reduce((masked, one) => one.redact(masked), text)
    if (isJson) io.stdout.write(`${redact(JSON.stringify({ command: name, ok: false, result: null, error: errorJson(error) }))}\n`)
    io.stderr.write(`${redact(`millrace: ${error.toString()}`)}\n`)
    // a bug of ours is worth its stack; the user's mistakes are not
    if (rest.includes('--debug') || error.category === 'bug') io.stderr.write(`${redact(stacks(error))}\n`)
    return EXIT_CODE[error.category]
  }
}

function parse(command: Command, rest: readonly string[], io: CommandIo, secrets: Secrets[]): CommandInput | null {
  const known = { ...EVERYWHERE, ...command.options }
  try {
    const { values, positionals } = parseArgs({ args: [...rest], options: known, allowPositionals: true, strict: true })
    if (values.help === true) return null
    const [least, most] = command.arguments
    if (positionals.length < least || positionals.length > most) {
      const what = positionals.length < least ? 'something is missing' : `${positionals[most]} is one too many`
      throw new MillraceError('config.invalid', `${command.name}: ${what}`, { fix: `${usageOf(command)}; millrace ${command.name} --help has examples` })
    }
    const forDir = (dir: string) => {
      const made = new Secrets({ env: io.env, dir })
      secrets.push(made)
      return made
    }
    return { arguments: positionals, options: values as CommandInput['options'], io, plugins: new PluginCatalog(), secrets: forDir }
  } catch (thrown) {
    if (thrown instanceof MillraceError) throw thrown
    const message = thrown instanceof Error ? thrown.message : String(thrown)
    const wrong = /'(--?[^' =]+)/.exec(message)?.[1]
    const meant = wrong === undefined ? null : nearest(wrong.replace(/^-+/, ''), Object.keys(known))
    throw new MillraceError('config.invalid', `${command.name}: ${message.split('. ')[0]}`, {
      fix: meant !== null && `--${meant}` !== wrong ? `did you mean --${meant}?` : `millrace ${command.name} --help lists the options`,
    })
  }
}

function unknownCommand(name: string, names: readonly string[]): MillraceError {
  const meant = nearest(name, names)
  return new MillraceError('config.invalid', `no command is called ${name}`, { fix: meant === null ? `one of: ${names.join(', ')}` : `millrace ${meant}` })
}

function errorJson({ code, category, message, fix, where }: MillraceError): unknown {
  return { code, category, message, fix: fix ?? null, where: where ?? null }
}

function stacks(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  return error.cause === undefined ? (error.stack ?? '') : `${error.stack}\ncaused by ${stacks(error.cause)}`
}

function overview(commands: readonly Command[]): string {
  const width = Math.max(...commands.map(({ name }) => name.length))
  return `millrace ${packageVersion()}: changes from databases into a governed log, lakes and search indexes that stay equal to the source

Commands:
${commands.map(({ name, summary }) => `  ${name.padEnd(width)}  ${summary}`).join('\n')}

Start here:
  millrace check mesh-config/quickstart.mesh.yaml    is everything in order?
  millrace run mesh-config/quickstart.mesh.yaml      run it; Ctrl-C stops it
  millrace help run                                  a page on one command

${EVERYWHERE_HELP}
`
}

function usageOf(command: Command): string {
  return `usage: ${command.help.split('\n', 1)[0]}`
}

function pageOf(command: Command): string {
  const [usage, ...page] = command.help.trim().split('\n')
  return `${command.summary}\n\n${usage}\n${page.join('\n')}\n\n${EVERYWHERE_HELP}`
}
