import { createWriteStream } from 'node:fs'
import { finished } from 'node:stream/promises'
import { type Logger, type LevelWithSilent as LogLevel, pino } from 'pino'
import { MillraceError } from '../../core/errors.ts'
import { type CommandInput, textOption } from './command.ts'

export const LOG_OPTIONS = {
  'log-level': { type: 'string' },
  'log-file': { type: 'string' },
} as const

export const LOG_HELP = `  --log-level LEVEL   trace, debug, info, warn, error or silent; default info
  --log-file FILE     append JSON logs to a file instead of stderr`

const LEVELS: readonly LogLevel[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']

export interface CliLogger extends AsyncDisposable {
  readonly logger: Logger
}

/**
 * Logs as JSON lines to stderr or a file; `printLine`, for people at a terminal, takes them as short text instead. Secrets are masked in every line.
 * @throws config.invalid for a level that does not exist
 */
export function openCliLogger(
  input: CommandInput,
  options: { readonly redact: (text: string) => string; readonly printLine?: (line: string) => void; readonly level?: LogLevel },
): CliLogger {
  const level = textOption(input, 'log-level') ?? options.level ?? 'info'
  if (!LEVELS.includes(level as LogLevel)) throw new MillraceError('config.invalid', `there is no log level ${level}`, { fix: `one of: ${LEVELS.join(', ')}` })
  const name = textOption(input, 'log-file')
  const file = name === undefined ? null : createWriteStream(name, { flags: 'a', mode: 0o600 })
  file?.on('error', (error) => input.io.stderr.write(`millrace: the log file ${name} cannot be written: ${error.message}\n`))
  const write = (line: string) => {
    const masked = options.redact(line)
    if (file !== null) file.write(masked)
    else if (options.printLine !== undefined) options.printLine(shortLine(masked))
    else input.io.stderr.write(masked)
  }
  const logger = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime, formatters: { level: (label) => ({ level: label }) } }, { write })
  return {
    logger,
    async [Symbol.asyncDispose]() {
      if (file === null) return
      file.end()
      await finished(file).catch(() => {})
    },
  }
}

/** `12:04:05 warn  message (shop.public.orders) [code]`, and below it the fix, of a JSON log line. */
export function shortLine(json: string): string {
  try {
    const {
      time,
      level,
      msg = '',
      fix,
      code,
      topic,
      table,
    } = JSON.parse(json) as { readonly time: string; readonly level: string } & {
      readonly [name in 'msg' | 'fix' | 'code' | 'topic' | 'table']?: string
    }
    const subject = topic ?? table
    const about = subject === undefined || msg.includes(subject) ? '' : ` (${subject})`
    return `${time.slice(11, 19)} ${level.padEnd(5)} ${msg}${about}${code === undefined ? '' : ` [${code}]`}${fix === undefined ? '' : `\n               fix: ${fix}`}`
  } catch {
    return json.trimEnd()
  }
}
