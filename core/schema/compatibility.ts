/** Whether data written with one Avro schema can be read with another. Source: Apache Avro 1.12 specification, "Schema Resolution". */
import type { AvroEnum, AvroFixed, AvroRecord, AvroSchema } from './avro-schema.ts'
import type { CompatibilityLevel } from './registry.ts'

export interface SchemaVersionToCheck {
  readonly version: number
  readonly schema: AvroSchema
}

/**
 * What a new schema would break at this level, in words; empty when nothing.
 * @param versions the subject's versions, rising; the last one alone counts unless the level is transitive
 */
export function breaksAt(level: CompatibilityLevel, schema: AvroSchema, versions: readonly SchemaVersionToCheck[]): readonly string[] {
  if (level === 'NONE') return []
  const against = level.endsWith('_TRANSITIVE') ? versions : versions.slice(-1)
  const backward = level.startsWith('BACKWARD') || level.startsWith('FULL')
  const forward = level.startsWith('FORWARD') || level.startsWith('FULL')
  return against.flatMap(({ version, schema: old }) => [
    ...(backward ? incompatibilities(schema, old).map((message) => `the new schema cannot read data of version ${version}: ${message}`) : []),
    ...(forward ? incompatibilities(old, schema).map((message) => `version ${version} cannot read data of the new schema: ${message}`) : []),
  ])
}

/**
 * Why data of `writer` cannot be read as `reader`: one message per cause, each with the JSON path in the reader's schema; empty when it can.
 *
 * Beyond what Java's checker looks at, decimals are compared: another scale, a smaller precision, or a decimal read as something else would
 * change values silently. (The specification asks for equal precision too; a larger one reads every value exactly and is let through.)
 */
export function incompatibilities(reader: AvroSchema, writer: AvroSchema): readonly string[] {
  const found = new Set<string>()
  check(reader, writer, '$', found, new Map())
  return [...found]
}

/**
 * What was found for pairs of records, so that a record that is named again gives the messages of where it is defined. A pair under way has none
 * yet: a recursive pair holds if everything else does.
 */
type Checked = Map<AvroRecord, Map<AvroRecord, ReadonlySet<string>>>

const PROMOTIONS: Readonly<Record<string, readonly string[]>> = {
  int: ['long', 'float', 'double'],
  long: ['float', 'double'],
  float: ['double'],
  string: ['bytes'],
  bytes: ['string'],
}

function check(reader: AvroSchema, writer: AvroSchema, path: string, found: Set<string>, checked: Checked): void {
  if (writer.type === 'union') {
    for (const branch of writer.branches) check(reader, branch, path, found, checked)
    return
  }
  if (reader.type === 'union') {
    checkUnion(reader.branches, writer, path, found, checked)
    return
  }
  if (reader.type !== writer.type) {
    if (!PROMOTIONS[writer.type]?.includes(reader.type)) found.add(`${path}: ${nameOf(writer)} cannot be read as ${nameOf(reader)}`)
    else checkDecimal(reader, writer, path, found)
    return
  }
  switch (reader.type) {
    case 'record':
      checkRecord(reader, writer as AvroRecord, path, found, checked)
      return
    case 'enum':
      checkEnum(reader, writer as AvroEnum, path, found)
      return
    case 'fixed': {
      const { sizeBytes } = writer as AvroFixed
      if (!sameName(reader, writer as AvroFixed)) found.add(`${path}: the ${nameOf(writer)} is not ${reader.name} or one of its aliases`)
      else if (reader.sizeBytes !== sizeBytes) found.add(`${path}.size: ${reader.name} had ${sizeBytes} bytes and now has ${reader.sizeBytes}`)
      else checkDecimal(reader, writer, path, found)
      return
    }
    case 'array':
      check(reader.items, (writer as typeof reader).items, `${path}.items`, found, checked)
      return
    case 'map':
      check(reader.values, (writer as typeof reader).values, `${path}.values`, found, checked)
      return
    default:
      checkDecimal(reader, writer, path, found)
  }
}

function checkUnion(branches: readonly AvroSchema[], writer: AvroSchema, path: string, found: Set<string>, checked: Checked): void {
  let nearest: ReadonlySet<string> | null = null
  for (const [i, branch] of branches.entries()) {
    const inner = new Set<string>()
    check(branch, writer, `${path}[${i}]`, inner, checked)
    if (inner.size === 0) return
    if (branch.type === writer.type && (!('name' in branch) || sameName(branch, writer as typeof branch))) nearest ??= inner
  }
  if (nearest === null) found.add(`${path}: the union has no branch that can read ${nameOf(writer)}`)
  else for (const message of nearest) found.add(message)
}

function checkRecord(reader: AvroRecord, writer: AvroRecord, path: string, found: Set<string>, checked: Checked): void {
  if (!sameName(reader, writer)) {
    found.add(`${path}: the record ${writer.name} is not ${reader.name} or one of its aliases`)
    return
  }
  let writers = checked.get(reader)
  const known = writers?.get(writer)
  if (known !== undefined) {
    for (const message of known) found.add(message)
    return
  }
  if (writers === undefined) checked.set(reader, (writers = new Map()))
  writers.set(writer, new Set())
  const inner = new Set<string>()
  for (const [i, field] of reader.fields.entries()) {
    const at = `${path}.fields[${i}]`
    const names = [field.name, ...field.aliases]
    const old = names.map((name) => writer.fields.find((candidate) => candidate.name === name)).find((candidate) => candidate !== undefined)
    if (old !== undefined) check(field.schema, old.schema, `${at}.type`, inner, checked)
    else if (!field.hasDefault) inner.add(`${at}: the field ${field.name} of ${reader.name} has no default and is not in the data`)
  }
  writers.set(writer, inner)
  for (const message of inner) found.add(message)
}

function checkEnum(reader: AvroEnum, writer: AvroEnum, path: string, found: Set<string>): void {
  if (!sameName(reader, writer)) {
    found.add(`${path}: the enum ${writer.name} is not ${reader.name} or one of its aliases`)
    return
  }
  const missing = writer.symbols.filter((symbol) => !reader.symbols.includes(symbol))
  if (missing.length > 0 && reader.default === null) found.add(`${path}.symbols: ${reader.name} lacks ${missing.join(', ')} and has no default`)
}

function checkDecimal(reader: AvroSchema, writer: AvroSchema, path: string, found: Set<string>): void {
  const [to, from] = [decimalOf(reader), decimalOf(writer)]
  if (to === null && from === null) return
  if (to === null || from === null)
    found.add(`${path}: ${from === null ? `${nameOf(writer)} cannot be read as a decimal` : `a decimal cannot be read as ${nameOf(reader)}`}`)
  else if (to.scale !== from.scale) found.add(`${path}.scale: the decimal had scale ${from.scale} and now has ${to.scale}`)
  else if (to.precision < from.precision) found.add(`${path}.precision: the decimal had precision ${from.precision} and now has ${to.precision}`)
}

/** null when the schema is no decimal, or not a valid one: the specification ignores a logical type that does not fit. */
function decimalOf(schema: AvroSchema): { readonly precision: number; readonly scale: number } | null {
  if ((schema.type !== 'bytes' && schema.type !== 'fixed') || schema.attributes.logicalType !== 'decimal') return null
  const { precision, scale = 0 } = schema.attributes
  if (!Number.isSafeInteger(precision) || !Number.isSafeInteger(scale)) return null
  const decimal = { precision: precision as number, scale: scale as number }
  return decimal.precision > 0 && decimal.scale >= 0 && decimal.scale <= decimal.precision ? decimal : null
}

/** Unqualified names decide, as in the specification and in Java; aliases are full names. */
function sameName(reader: { readonly name: string; readonly aliases: readonly string[] }, writer: { readonly name: string }): boolean {
  return unqualified(reader.name) === unqualified(writer.name) || reader.aliases.includes(writer.name)
}

function unqualified(name: string): string {
  return name.slice(name.lastIndexOf('.') + 1)
}

function nameOf(schema: AvroSchema): string {
  return 'name' in schema ? `${schema.type} ${schema.name}` : schema.type
}
