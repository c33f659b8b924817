import type { Attributes, AvroSchema } from './avro-schema.ts'

/** Attributes that the emitted schema states in its own way. */
const STATED = new Set(['type', 'name', 'namespace', 'aliases', 'fields', 'symbols', 'size', 'items', 'values'])

/**
 * One text for all spellings of a schema: full names, each type defined where it first occurs, attributes in alphabetical order, all of them kept.
 * (Unlike the specification's parsing canonical form, which drops defaults, logical types and custom properties: those matter to readers.)
 * @param known full names of types that the schema uses but does not define
 */
export function normalForm(schema: AvroSchema, known: Iterable<string> = []): string {
  return JSON.stringify(emit(schema, new Set(known)))
}

function emit(schema: AvroSchema, defined: Set<string>): unknown {
  switch (schema.type) {
    case 'union':
      return schema.branches.map((branch) => emit(branch, defined))
    case 'array':
      return { type: 'array', items: emit(schema.items, defined), ...rest(schema.attributes) }
    case 'map':
      return { type: 'map', values: emit(schema.values, defined), ...rest(schema.attributes) }
    case 'record':
    case 'enum':
    case 'fixed': {
      if (defined.has(schema.name)) return schema.name
      defined.add(schema.name)
      const head = { type: schema.attributes.type, name: schema.name, ...(schema.aliases.length === 0 ? {} : { aliases: schema.aliases }) }
      if (schema.type === 'enum') return { ...head, symbols: schema.symbols, ...rest(schema.attributes) }
      if (schema.type === 'fixed') return { ...head, size: schema.sizeBytes, ...rest(schema.attributes) }
      const fields = schema.fields.map((field) => ({
        name: field.name,
        ...(field.aliases.length === 0 ? {} : { aliases: field.aliases }),
        type: emit(field.schema, defined),
        ...rest(field.attributes),
      }))
      return { ...head, fields, ...rest(schema.attributes) }
    }
    default: {
      const attributes = rest(schema.attributes)
      return Object.keys(attributes).length === 0 ? schema.type : { type: schema.type, ...attributes }
    }
  }
}

function rest(attributes: Attributes): Attributes {
  return sorted(Object.fromEntries(Object.entries(attributes).filter(([name]) => !STATED.has(name)))) as Attributes
}

function sorted(json: unknown): unknown {
  if (Array.isArray(json)) return json.map(sorted)
  if (typeof json !== 'object' || json === null) return json
  const entries = Object.entries(json).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([name, value]) => [name, sorted(value)]))
}
