import type { ParseArgsOptionsConfig } from 'node:util'
import type { Secrets } from '../../core/mesh/secrets.ts'
import type { PluginCatalog } from '../../core/runtime/plugin-catalog.ts'

/** One word of the command line. Its help is a page with examples, not a list of flags. */
export interface Command {
  readonly name: string
  /** One line for the list of commands. */
  readonly summary: string
  /** The page of `millrace <name> --help`, without the options that all commands have. */
  readonly help: string
  readonly options: ParseArgsOptionsConfig
  /** Least and most arguments besides options. */
  readonly arguments: readonly [number, number]
  run(input: CommandInput): Promise<CommandOutcome>
}

export interface CommandInput {
  readonly arguments: readonly string[]
  readonly options: Readonly<Record<string, string | boolean | readonly (string | boolean)[] | undefined>>
  readonly io: CommandIo
  readonly plugins: PluginCatalog
  /** The secrets of the mesh in `dir`; what they give out is masked in everything that goes to stderr from then on. */
  readonly secrets: (dir: string) => Secrets
}

export interface CommandOutcome {
  readonly exitCode: 0 | 1 | 2 | 3
  /** What `--json` shows as `result`. */
  readonly result: unknown
  /** What people see on stdout; null when it was written already. */
  readonly text: string | null
}

/** The process as a command sees it, so that tests run commands without one. */
export interface CommandIo {
  readonly stdin: NodeJS.ReadableStream & { readonly isTTY?: boolean }
  readonly stdout: NodeJS.WritableStream & { readonly isTTY?: boolean }
  readonly stderr: NodeJS.WritableStream & { readonly isTTY?: boolean; readonly columns?: number; readonly rows?: number }
  readonly env: Readonly<Record<string, string | undefined>>
  readonly cwd: string
  /** Aborts with SIGINT or SIGTERM. */
  readonly signal: AbortSignal
}

export function textOption(input: CommandInput, name: string): string | undefined {
  const value = input.options[name]
  return typeof value === 'string' ? value : undefined
}

export function flag(input: CommandInput, name: string): boolean {
  return input.options[name] === true
}
