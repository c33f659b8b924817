import { z } from 'zod'
import { MillraceError } from '../../core/errors.ts'
import type { Plugin } from '../../core/plugin.ts'
import type { Command } from './command.ts'

export const pluginsCommand: Command = {
  name: 'plugins',
  summary: 'List the plugins, or show the settings of one',
  help: `millrace plugins [NAME | PATH]

Millrace's own, and those installed here as millrace-plugin-…, with the names of their settings.

Examples:
  millrace plugins
  millrace plugins postgres        every setting with its default and meaning
  millrace plugins ./my-source     of a plugin of your own`,
  options: {},
  arguments: [0, 1],
  async run({ arguments: [name], plugins, io }) {
    if (name !== undefined) {
      const plugin = /[./@]/.test(name) ? await plugins.at(name, io.cwd) : await plugins.find(name, undefined, io.cwd)
      const settings = settingsOf(plugin)
      const text = [`${plugin.name} (${plugin.kind}): ${plugin.summary}`, '', ...settings.map(formatSetting)].join('\n')
      return { exitCode: 0, result: { name: plugin.name, kind: plugin.kind, summary: plugin.summary, settings }, text }
    }
    const all = await plugins.all(io.cwd)
    const result = all.map(({ name, plugin }) =>
      plugin instanceof MillraceError
        ? { name, kind: null, summary: null, settings: null, error: plugin.message }
        : { name, kind: plugin.kind, summary: plugin.summary, settings: settingsOf(plugin), error: null },
    )
    const width = Math.max(...result.map(({ name }) => name.length))
    const text = result
      .flatMap(({ name, kind, summary, settings, error }) => [
        `${name.padEnd(width)}  ${(kind ?? 'error').padEnd(6)}  ${summary ?? error}`,
        ...(settings === null ? [] : [`${' '.repeat(width + 10)}${settings.map((one) => (one.required ? `${one.name}*` : one.name)).join(' ')}`]),
      ])
      .join('\n')
    return { exitCode: 0, result, text }
  },
}

interface Setting {
  readonly name: string
  readonly type: string
  readonly required: boolean
  readonly default: unknown
  readonly description: string
}

interface JsonSchema {
  readonly type?: string
  readonly enum?: readonly unknown[]
  readonly const?: unknown
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly oneOf?: readonly JsonSchema[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly required?: readonly string[]
  readonly default?: unknown
  readonly description?: string
}

function settingsOf(plugin: Plugin<unknown>): readonly Setting[] {
  const schema = z.toJSONSchema(plugin.config, { io: 'input', unrepresentable: 'any' }) as JsonSchema
  return Object.entries(schema.properties ?? {}).map(([name, property]) => ({
    name,
    type: typeOf(property),
    required: schema.required?.includes(name) ?? false,
    default: property.default,
    description: property.description ?? '',
  }))
}

function typeOf(schema: JsonSchema): string {
  if (schema.const !== undefined) return String(schema.const)
  if (schema.enum !== undefined) return schema.enum.map(String).join(' | ')
  const branches = schema.anyOf ?? schema.oneOf
  if (branches !== undefined) return [...new Set(branches.map(typeOf))].join(' | ')
  if (schema.type === 'array') return `list of ${schema.items === undefined ? 'values' : typeOf(schema.items)}`
  if (schema.type === 'object' && schema.properties !== undefined) return `{ ${Object.keys(schema.properties).join(', ')} }`
  return schema.type ?? 'value'
}

function formatSetting({ name, type, required, default: value, description }: Setting): string {
  const rule = required ? 'required' : value === undefined ? 'optional' : `default ${JSON.stringify(value)}`
  return `  ${name}: ${type} (${rule})\n      ${description}`
}
