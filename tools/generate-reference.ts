/** Writes docs/reference/errors.md and settings.md from the code that declares them: `npm run docs`. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { z } from 'zod'
import { ERROR_CODES, type ErrorCategory, EXIT_CODE, MillraceError } from '../core/errors.ts'
import { meshFrameSchema, sinkFrameSchema, snapshotSchema, sourceFrameSchema, topicOverridesSchema } from '../core/mesh/mesh-schema.ts'
import { PluginCatalog } from '../core/runtime/plugin-catalog.ts'

export const REFERENCE_FOLDER = new URL('../docs/reference/', import.meta.url)

const GENERATED = '<!-- Made by `npm run docs` from the code; a test fails when it is out of date. -->'

const REACTION: Readonly<Record<ErrorCategory, string>> = {
  config: 'Never retried: the node fails until the file, the setting or the privilege is corrected and the mesh is started again.',
  unavailable: 'Tried again for ever, with growing waits and jitter (200 ms to 30 s). The node is `degraded` meanwhile; others go on.',
  history: 'The node stops and nothing is skipped. For a source: `millrace run FILE --resnapshot NODE` reads its tables again.',
  schema: 'The stream (of a sink) or the source stops until the schema, its compatibility level or the target is changed.',
  data: 'A sink copies the record to its dead-letter topic and goes on, or halts with `onRejected: halt`. A source stops.',
  conflict: 'The node gives up: another process has taken over. Only one may run.',
  bug: 'The node stops, with a stack trace. Please report it.',
}

export function errorsPage(): string {
  const categories = Object.keys(REACTION) as ErrorCategory[]
  const sections = categories.map((category) => {
    const codes = Object.entries(ERROR_CODES).filter(([, [one]]) => one === category)
    return [
      `## ${category} (exit code ${EXIT_CODE[category]})`,
      REACTION[category],
      '',
      '| code | meaning |',
      '|---|---|',
      ...codes.map(([code, [, meaning]]) => `| \`${code}\` | ${cell(meaning)} |`),
    ].join('\n')
  })
  return `${GENERATED}
# Errors

Each error has a stable code, a message that says what and where, and mostly a line \`fix:\` with the command or setting that repairs it. The code's category alone
decides what the runtime does. Codes are added, never renamed. With \`--json\` they are in \`error.code\`; in logs in \`code\`; in /status per node and stream.

${sections.join('\n\n')}
`
}

interface JsonSchema {
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
  readonly oneOf?: readonly JsonSchema[]
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: JsonSchema | boolean
  readonly required?: readonly string[]
  readonly default?: unknown
  readonly description?: string
}

const json = (schema: z.ZodType): JsonSchema => z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema

/** @throws config.unknown_plugin when a plugin of the package does not load */
export async function settingsPage(): Promise<string> {
  const frame = json(meshFrameSchema)
  const { log, registry, topics } = frame.properties!
  const plugins = (await new PluginCatalog().all()).map(({ plugin }) => {
    if (plugin instanceof MillraceError) throw plugin
    return plugin
  })
  const section = (title: string, text: string, schema: JsonSchema, leaveOut: readonly string[] = []) =>
    [`## ${title}`, ...(text === '' ? [] : [text, '']), ...table(schema, leaveOut)].join('\n')
  const variants = (title: string, schema: JsonSchema) =>
    (schema.oneOf ?? schema.anyOf ?? []).map((one) =>
      section(`\`${title}\`: ${String(one.properties?.kind?.const)}`, one.properties?.kind?.description ?? '', one, ['kind']),
    )
  return `${GENERATED}
# Settings

One YAML file is a mesh. Editors complete and check it with \`mesh-config/mesh.schema.json\`; \`millrace check FILE --offline\` names every mistake with its line.
Every text may hold \`\${env:NAME}\` or \`\${file:path}\` (relative to the mesh file): secrets belong there, and one in clear text is refused. Relative paths count from the mesh file.
\`log: embedded\` and \`registry: embedded\` are short for \`{ kind: embedded }\`.

${[
  section('The mesh', '', frame),
  ...variants('log', log!),
  ...variants('registry', registry!),
  section('`topics`', topics?.description ?? '', topics!),
  section('Every source', "Besides its plugin's own settings.", json(sourceFrameSchema)),
  section('`topics` of a source', json(topicOverridesSchema).description ?? '', json(topicOverridesSchema)),
  section('`snapshot` of a source', json(snapshotSchema).description ?? '', json(snapshotSchema)),
  section('Every sink', "Besides its plugin's own settings.", json(sinkFrameSchema)),
  ...plugins.map((plugin) => section(`\`kind: ${plugin.name}\` (${plugin.kind})`, plugin.summary, json(plugin.config as z.ZodType))),
].join('\n\n')}
`
}

function table(schema: JsonSchema, leaveOut: readonly string[]): string[] {
  const rows = rowsOf(schema, '').filter(([name]) => !leaveOut.includes(name))
  if (rows.length === 0) return ['No further settings.']
  return ['| setting | type | default | |', '|---|---|---|---|', ...rows.map(([name, ...rest]) => `| \`${name}\` | ${rest.map(cell).join(' | ')} |`)]
}

type Row = readonly [name: string, type: string, preset: string, text: string]

/** A row for each setting; those of an object that has a shape follow it, under their path. */
function rowsOf(schema: JsonSchema, prefix: string): readonly Row[] {
  return Object.entries(schema.properties ?? {}).flatMap(([name, property]) => {
    const path = `${prefix}${name}`
    const isRequired = schema.required?.includes(name) === true && property.default === undefined
    const preset = isRequired
      ? 'required'
      : property.default === undefined || typeof property.default === 'object'
        ? ''
        : `\`${JSON.stringify(property.default)}\``
    const shapes = prefix === '' && NESTED_ELSEWHERE.has(name) ? [] : shapesOf(property)
    return [[path, typeOf(property), preset, property.description ?? ''] as const, ...mergedRows(shapes, path)]
  })
}

/** The settings of an object; of one that has several kinds, each row says of which kind it is. */
function mergedRows(shapes: readonly JsonSchema[], path: string): readonly Row[] {
  if (shapes.length < 2) return shapes.flatMap((shape) => rowsOf(shape, `${path}.`))
  const kinds = shapes.map((shape) => `\`${String(shape.properties?.kind?.const)}\``)
  const kindRow: Row = [`${path}.kind`, kinds.join(', '), '', 'Which of them.']
  const rows = shapes.flatMap((shape, i) =>
    rowsOf(shape, `${path}.`)
      .filter(([name]) => name !== `${path}.kind`)
      .map(([name, type, preset, text]): Row => [name, type, preset, `With ${kinds[i]}: ${text}`]),
  )
  return [kindRow, ...rows]
}

/** Those have a section of their own. */
const NESTED_ELSEWHERE = new Set(['log', 'registry', 'topics', 'snapshot'])

function shapesOf(schema: JsonSchema): readonly JsonSchema[] {
  return [schema, ...(schema.anyOf ?? schema.oneOf ?? [])].filter(({ properties }) => properties !== undefined)
}

function typeOf(schema: JsonSchema): string {
  if (schema.const !== undefined) return `\`${String(schema.const)}\``
  if (schema.enum !== undefined) return schema.enum.map((value) => `\`${String(value)}\``).join(', ')
  const branches = schema.anyOf ?? schema.oneOf
  if (branches !== undefined) return [...new Set(branches.map(typeOf))].join(' or ')
  if (schema.type === 'array') return `list of ${schema.items === undefined ? 'values' : typeOf(schema.items)}`
  return schema.type ?? 'any'
}

function cell(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replace(/\s+/g, ' ')
}

if (import.meta.main) {
  mkdirSync(REFERENCE_FOLDER, { recursive: true })
  writeFileSync(new URL('errors.md', REFERENCE_FOLDER), errorsPage())
  writeFileSync(new URL('settings.md', REFERENCE_FOLDER), await settingsPage())
}
