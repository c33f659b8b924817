import { z } from 'zod'
import type { Plugin } from '../plugin.ts'
import { meshFrameSchema, sinkFrameSchema, sourceFrameSchema } from './mesh-schema.ts'

type JsonSchema = { readonly [key: string]: unknown }

const NAME_PATTERN = '^[a-z0-9][a-z0-9-]{0,47}$'
const REFERENCE = { type: 'string', pattern: '\\$\\{(env|file):[^}]+\\}' }

/**
 * The JSON schema of mesh files, for editors: the frame and the settings of every plugin given, each node's keys by its `kind`. Every setting may be a
 * secret reference too. A plugin that is loaded from elsewhere (`plugin:`) may have any settings.
 */
export function meshJsonSchema(plugins: readonly Plugin<unknown>[]): JsonSchema {
  const { sources, sinks, ...frame } = meshFrameSchema.shape
  const root = describe(z.strictObject(frame))
  const properties = root.properties as Record<string, JsonSchema>
  for (const key of ['log', 'registry']) properties[key] = { anyOf: [{ enum: ['embedded'] }, properties[key]], description: properties[key]!.description }
  const nodes = (role: 'source' | 'sink', description: string | undefined) => ({
    type: 'object',
    description,
    ...(role === 'source' ? { minProperties: 1 } : {}),
    propertyNames: { pattern: NAME_PATTERN },
    additionalProperties: { $ref: `#/$defs/${role}` },
  })
  const own = plugins.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'Millrace mesh',
    type: 'object',
    properties: {
      ...allowReferences(properties, new Set(['mesh'])),
      sources: nodes('source', sources.description),
      sinks: nodes('sink', sinks.description),
    },
    required: ['mesh', 'sources'],
    additionalProperties: false,
    $defs: { source: nodeSchema(own, 'source'), sink: nodeSchema(own, 'sink') },
  }
}

/** The branch of a node is chosen by its kind, so that an editor completes and judges the keys of that plugin alone. */
function nodeSchema(plugins: readonly Plugin<unknown>[], role: 'source' | 'sink'): JsonSchema {
  const frame = describe(role === 'source' ? sourceFrameSchema : sinkFrameSchema)
  const frameProperties = frame.properties as Record<string, JsonSchema>
  const required = frame.required as readonly string[]
  const own = plugins.filter(({ kind }) => kind === role)
  return {
    type: 'object',
    properties: { kind: { ...frameProperties.kind, examples: own.map(({ name }) => name) } },
    required,
    allOf: [
      ...own.map((plugin) => ({
        if: { properties: { kind: { const: plugin.name } }, required: ['kind'], not: { required: ['plugin'] } },
        // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON schema
        then: withFrame(plugin, frameProperties),
      })),
      {
        if: { not: { anyOf: [{ required: ['plugin'] }] } },
        // biome-ignore lint/suspicious/noThenProperty: a keyword of JSON schema
        then: { properties: { kind: { enum: own.map(({ name }) => name) } } },
      },
    ],
  }
}

function withFrame(plugin: Plugin<unknown>, frame: Record<string, JsonSchema>): JsonSchema {
  const { $schema: _, ...settings } = describe(plugin.config)
  const framed = { ...frame, kind: { const: plugin.name, description: plugin.summary } }
  if (settings.type !== 'object') return { allOf: [allowReferences(settings, new Set()), { properties: framed }], unevaluatedProperties: false }
  const properties = allowReferences(settings.properties as Record<string, JsonSchema>, new Set())
  return { ...settings, properties: { ...framed, ...properties } }
}

function describe(schema: z.ZodType): JsonSchema {
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema
}

/** Every scalar with a rule of its own may be a reference to a secret instead. */
function allowReferences<T>(value: T, except: ReadonlySet<string>): T {
  if (Array.isArray(value)) return value.map((item) => allowReferences(item, except)) as T
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([key, item]) => {
    if (key === 'properties') return [key, mapValues(item as Record<string, JsonSchema>, orReference)]
    if (key === 'items' || key === 'additionalProperties') return [key, typeof item === 'object' ? orReference(item as JsonSchema) : item]
    if (key === 'anyOf' || key === 'oneOf') return [key, (item as JsonSchema[]).map((branch) => allowReferences(branch, except))]
    return [key, isSchema(item) && !except.has(key) ? orReference(item) : item]
  })
  return Object.fromEntries(entries) as T
}

function orReference(schema: JsonSchema): JsonSchema {
  const inner = allowReferences(schema, new Set())
  const branches = inner.anyOf as readonly JsonSchema[] | undefined
  if (branches?.some(({ type }) => type === 'boolean' || type === 'number' || type === 'integer')) return { ...inner, anyOf: [...branches, REFERENCE] }
  const isRuled =
    schema.type === 'number' ||
    schema.type === 'integer' ||
    schema.type === 'boolean' ||
    (schema.type === 'string' && ('pattern' in schema || 'format' in schema)) ||
    (Array.isArray(schema.enum) && schema.type === 'string')
  if (!isRuled || 'const' in schema) return inner
  const { description, default: preset, ...rule } = inner
  return { anyOf: [rule, REFERENCE], ...(description === undefined ? {} : { description }), ...(preset === undefined ? {} : { default: preset }) }
}

function isSchema(value: unknown): value is JsonSchema {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && ('type' in value || 'anyOf' in value || 'oneOf' in value)
}

function mapValues<T, R>(object: Record<string, T>, change: (value: T) => R): Record<string, R> {
  return Object.fromEntries(Object.entries(object).map(([key, value]) => [key, change(value)]))
}
