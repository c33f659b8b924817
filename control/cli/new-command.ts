import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { MillraceError } from '../../core/errors.ts'
import { type Command, textOption } from './command.ts'
import { pluginFiles } from './plugin-template.ts'

export const newCommand: Command = {
  name: 'new',
  summary: 'Write a folder with a source or sink of your own that works',
  help: `millrace new source|sink NAME [--dir DIR]

Writes a plugin in TypeScript with its contract test, a trial mesh and a README; nothing that is there is overwritten.

  --dir DIR   the folder; default: NAME

Examples:
  millrace new source pond
  millrace new sink ledger --dir plugins/ledger`,
  options: { dir: { type: 'string' } },
  arguments: [2, 2],
  async run(input) {
    const [kind, name] = input.arguments as [string, string]
    if (kind !== 'source' && kind !== 'sink') throw new MillraceError('config.invalid', `new makes no ${kind}`, { fix: 'millrace new source|sink NAME' })
    if (!/^[a-z][a-z0-9-]{0,30}$/.test(name) || input.plugins.names.includes(name)) {
      const why = input.plugins.names.includes(name) ? "is one of Millrace's own plugins" : 'is no name: lower-case letters, digits and -'
      throw new MillraceError('config.invalid', `${name} ${why}`, { fix: `millrace new ${kind} my-${kind}` })
    }
    const dir = path.resolve(input.io.cwd, textOption(input, 'dir') ?? name)
    mkdirSync(dir, { recursive: true })
    if (readdirSync(dir).length > 0) throw new MillraceError('config.invalid', `${dir} is not empty`, { fix: 'give another folder with --dir' })
    const files = pluginFiles(kind, name)
    for (const [file, text] of Object.entries(files)) {
      mkdirSync(path.dirname(path.join(dir, file)), { recursive: true })
      writeFileSync(path.join(dir, file), text)
    }
    const names = Object.keys(files)
    const steps = [`cd ${path.relative(input.io.cwd, dir) || '.'}`, 'npm install', 'npm test', 'npx millrace run mesh.yaml']
    const text = [`${dir}:`, ...names.map((file) => `  ${file}`), '', 'Next:', ...steps.map((step) => `  ${step}`)].join('\n')
    return { exitCode: 0, result: { dir, files: names }, text }
  },
}
