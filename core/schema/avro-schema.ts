/** Avro schemas, parsed and checked. Source: Apache Avro 1.12 specification, "Schema Declaration". */
import { MillraceError } from '../errors.ts'

const PRIMITIVES = ['null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string'] as const
export type Primitive = (typeof PRIMITIVES)[number]

/** Attributes of a schema or a field as they stand in its JSON, the specified ones included. */
export type Attributes = Readonly<Record<string, unknown>>

export type AvroSchema = AvroPrimitive | AvroRecord | AvroEnum | AvroFixed | AvroArray | AvroMap | AvroUnion

export interface AvroPrimitive {
  readonly type: Primitive
  readonly attributes: Attributes
}

interface Named {
  /** Namespace and name. */
  readonly name: string
  /** Full names. */
  readonly aliases: readonly string[]
  readonly attributes: Attributes
}

export interface AvroRecord extends Named {
  readonly type: 'record'
  /** Filled while the record is parsed, since it may contain itself. */
  readonly fields: readonly AvroField[]
}

export interface AvroField {
  readonly name: string
  readonly aliases: readonly string[]
  readonly schema: AvroSchema
  /** Whether there is a default; its JSON is `attributes.default`. */
  readonly hasDefault: boolean
  readonly attributes: Attributes
}

export interface AvroEnum extends Named {
  readonly type: 'enum'
  readonly symbols: readonly string[]
  readonly default: string | null
}

export interface AvroFixed extends Named {
  readonly type: 'fixed'
  readonly sizeBytes: number
}

export interface AvroArray {
  readonly type: 'array'
  readonly items: AvroSchema
  readonly attributes: Attributes
}

export interface AvroMap {
  readonly type: 'map'
  readonly values: AvroSchema
  readonly attributes: Attributes
}

export interface AvroUnion {
  readonly type: 'union'
  readonly branches: readonly AvroSchema[]
}

/** Types by full name. */
export type NamedTypes = ReadonlyMap<string, AvroRecord | AvroEnum | AvroFixed>

const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/
const NONE: Attributes = Object.freeze({})

/**
 * Parses a schema's JSON text and checks all that the specification asks: names, duplicates, unions, symbols, sizes, defaults.
 * Logical types that do not fit their type are ignored, as the specification wants.
 * @param known types that the schema may name without defining them (registry references)
 * @throws schema.invalid with the JSON path
 */
export function parseAvroSchema(text: string, known: NamedTypes = new Map()): AvroSchema {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    // A bare type name is a schema too, in the JSON of some registries' clients without its quotes.
    if (NAME.test(text.trim())) json = text.trim()
    else throw new MillraceError('schema.invalid', 'the schema is not JSON', { cause })
  }
  return new Parser(known).schema(json, '', '$')
}

/** Types that the schema defines, by full name. */
export function namedTypes(schema: AvroSchema, into = new Map<string, AvroRecord | AvroEnum | AvroFixed>()): Map<string, AvroRecord | AvroEnum | AvroFixed> {
  switch (schema.type) {
    case 'record':
      if (into.has(schema.name)) return into
      into.set(schema.name, schema)
      for (const field of schema.fields) namedTypes(field.schema, into)
      return into
    case 'enum':
    case 'fixed':
      return into.set(schema.name, schema)
    case 'array':
      return namedTypes(schema.items, into)
    case 'map':
      return namedTypes(schema.values, into)
    case 'union':
      for (const branch of schema.branches) namedTypes(branch, into)
      return into
    default:
      return into
  }
}

class Parser {
  readonly #named: Map<string, AvroRecord | AvroEnum | AvroFixed>
  readonly #defined = new Set<string>()
  /** Defaults may be of records that are not parsed to their end yet. */
  readonly #defaults: (() => void)[] = []
  #depth = 0

  constructor(known: NamedTypes) {
    this.#named = new Map(known)
  }

  schema(json: unknown, namespace: string, path: string): AvroSchema {
    if (this.#depth++ > 200) invalid(path, 'schemas nest deeper than 200')
    const schema = this.#schema(json, namespace, path)
    if (--this.#depth === 0) for (const check of this.#defaults) check()
    return schema
  }

  #schema(json: unknown, namespace: string, path: string): AvroSchema {
    if (typeof json === 'string') return this.#byName(json, namespace, path, NONE)
    if (Array.isArray(json)) return this.#union(json, namespace, path)
    if (typeof json !== 'object' || json === null) invalid(path, `${JSON.stringify(json)} is not a schema`)
    const attributes = json as Attributes
    const { type } = attributes
    switch (type) {
      case 'record':
      case 'error':
        return this.#record(attributes, namespace, path)
      case 'enum':
        return this.#enum(attributes, namespace, path)
      case 'fixed': {
        const { size } = attributes
        if (!Number.isSafeInteger(size) || (size as number) < 0) invalid(path, 'a fixed needs a size of 0 or more')
        return this.#define({ type: 'fixed', ...this.#name(attributes, namespace, path), sizeBytes: size as number, attributes }, path)
      }
      case 'array':
        if (!('items' in attributes)) invalid(path, 'an array needs items')
        return { type: 'array', items: this.schema(attributes.items, namespace, `${path}.items`), attributes }
      case 'map':
        if (!('values' in attributes)) invalid(path, 'a map needs values')
        return { type: 'map', values: this.schema(attributes.values, namespace, `${path}.values`), attributes }
      default:
        if (typeof type === 'string') return this.#byName(type, namespace, path, attributes)
        if (type === undefined) invalid(path, 'a schema needs a type')
        return this.schema(type, namespace, `${path}.type`)
    }
  }

  #byName(name: string, namespace: string, path: string, attributes: Attributes): AvroSchema {
    if ((PRIMITIVES as readonly string[]).includes(name)) return { type: name as Primitive, attributes }
    const full = name.includes('.') || namespace === '' ? name : `${namespace}.${name}`
    const schema = this.#named.get(full) ?? this.#named.get(name)
    if (schema === undefined) invalid(path, `the type ${JSON.stringify(name)} is not defined`)
    return schema
  }

  #name(attributes: Attributes, enclosing: string, path: string): Pick<Named, 'name' | 'aliases'> {
    const { name, namespace, aliases } = attributes
    if (typeof name !== 'string') invalid(path, `a ${attributes.type} needs a name`)
    if (namespace !== undefined && typeof namespace !== 'string') invalid(path, 'a namespace must be a string')
    const full = fullName(name, (namespace as string | undefined) ?? enclosing)
    for (const part of full.split('.')) if (!NAME.test(part)) invalid(path, `${JSON.stringify(full)} is not an Avro name`)
    return { name: full, aliases: strings(aliases, `${path}.aliases`).map((alias) => fullName(alias, namespaceOf(full))) }
  }

  #define<T extends AvroRecord | AvroEnum | AvroFixed>(schema: T, path: string): T {
    if (this.#defined.has(schema.name)) invalid(path, `${schema.name} is defined twice`)
    if ((PRIMITIVES as readonly string[]).includes(schema.name)) invalid(path, `${schema.name} is the name of a primitive type`)
    this.#defined.add(schema.name)
    this.#named.set(schema.name, schema)
    return schema
  }

  #record(attributes: Attributes, enclosing: string, path: string): AvroRecord {
    const fields: AvroField[] = []
    const record: AvroRecord = this.#define({ type: 'record', ...this.#name(attributes, enclosing, path), fields, attributes }, path)
    const json = attributes.fields
    if (!Array.isArray(json)) invalid(path, `the record ${record.name} needs fields`)
    const seen = new Set<string>()
    for (const [i, entry] of json.entries()) {
      const at = `${path}.fields[${i}]`
      if (typeof entry !== 'object' || entry === null || Array.isArray(entry)) invalid(at, 'a field must be an object')
      const field = entry as Attributes
      const { name } = field
      if (typeof name !== 'string' || !NAME.test(name)) invalid(at, `${JSON.stringify(name)} is not an Avro name`)
      if (seen.has(name)) invalid(at, `the field ${name} is there twice`)
      seen.add(name)
      if (!('type' in field)) invalid(at, `the field ${name} needs a type`)
      const schema = this.schema(field.type, namespaceOf(record.name), `${at}.type`)
      const hasDefault = 'default' in field
      if (hasDefault) this.#defaults.push(() => checkDefault(schema, field.default, `${at}.default`))
      fields.push({ name, aliases: strings(field.aliases, `${at}.aliases`), schema, hasDefault, attributes: field })
    }
    return record
  }

  #enum(attributes: Attributes, enclosing: string, path: string): AvroEnum {
    const names = this.#name(attributes, enclosing, path)
    if (!Array.isArray(attributes.symbols)) invalid(path, `the enum ${names.name} needs symbols`)
    const symbols = strings(attributes.symbols, `${path}.symbols`)
    for (const symbol of symbols) if (!NAME.test(symbol)) invalid(path, `${JSON.stringify(symbol)} is not an enum symbol`)
    if (new Set(symbols).size !== symbols.length) invalid(path, `the enum ${names.name} has a symbol twice`)
    const fallback = attributes.default
    if (fallback !== undefined && !symbols.includes(fallback as string)) invalid(path, `the default of the enum ${names.name} is none of its symbols`)
    return this.#define({ type: 'enum', ...names, symbols, default: (fallback as string | undefined) ?? null, attributes }, path)
  }

  #union(json: readonly unknown[], namespace: string, path: string): AvroUnion {
    const branches = json.map((branch, i) => this.schema(branch, namespace, `${path}[${i}]`))
    const seen = new Set<string>()
    for (const [i, branch] of branches.entries()) {
      if (branch.type === 'union') invalid(`${path}[${i}]`, 'a union must not hold a union')
      const kind = 'name' in branch ? branch.name : branch.type
      if (seen.has(kind)) invalid(`${path}[${i}]`, `the union has ${kind} twice`)
      seen.add(kind)
    }
    return { type: 'union', branches }
  }
}

/** A union's default may be of any of its branches (1.12 and Java; before, the first only). */
function checkDefault(schema: AvroSchema, json: unknown, path: string): void {
  if (!isDefault(schema, json, 0)) invalid(path, `${JSON.stringify(json)} is not a default of the type ${schema.type}`)
}

function isDefault(schema: AvroSchema, json: unknown, depth: number): boolean {
  if (depth > 50) return false
  const object = typeof json === 'object' && json !== null && !Array.isArray(json)
  switch (schema.type) {
    case 'null':
      return json === null
    case 'boolean':
      return typeof json === 'boolean'
    case 'int':
      return Number.isInteger(json) && (json as number) >= -2147483648 && (json as number) <= 2147483647
    case 'long':
      return Number.isInteger(json)
    case 'float':
    case 'double':
      return typeof json === 'number' || json === 'NaN' || json === 'Infinity' || json === '-Infinity'
    case 'bytes':
    case 'string':
      return typeof json === 'string'
    case 'fixed':
      return typeof json === 'string' && json.length === schema.sizeBytes
    case 'enum':
      return schema.symbols.includes(json as string)
    case 'array':
      return Array.isArray(json) && json.every((item) => isDefault(schema.items, item, depth + 1))
    case 'map':
      return object && Object.values(json as object).every((value) => isDefault(schema.values, value, depth + 1))
    case 'union':
      return schema.branches.some((branch) => isDefault(branch, json, depth + 1))
    case 'record':
      return (
        object &&
        schema.fields.every((field) =>
          Object.hasOwn(json as object, field.name) ? isDefault(field.schema, (json as Attributes)[field.name], depth + 1) : field.hasDefault,
        )
      )
  }
}

function fullName(name: string, namespace: string): string {
  return name.includes('.') || namespace === '' ? name : `${namespace}.${name}`
}

function namespaceOf(full: string): string {
  return full.slice(0, Math.max(0, full.lastIndexOf('.')))
}

function strings(json: unknown, path: string): readonly string[] {
  if (json === undefined) return []
  if (!Array.isArray(json) || !json.every((item) => typeof item === 'string')) invalid(path, 'must be an array of strings')
  return json
}

function invalid(path: string, what: string): never {
  throw new MillraceError('schema.invalid', `not a valid Avro schema: ${path}: ${what}`, { fix: 'correct the schema and register it again' })
}
