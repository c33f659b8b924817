import { MillraceError } from '../../core/errors.ts'
import type { Column, ColumnType, TableSchema } from '../../core/event/table-schema.ts'
import { tableOf } from '../../core/schema/avro-mapping.ts'
import { parseAvroSchema } from '../../core/schema/avro-schema.ts'
import { incompatibilities } from '../../core/schema/compatibility.ts'
import type { CompatibilityLevel, SchemaRegistry, SchemaVersion } from '../../core/schema/registry.ts'

/** What a command shows: `result` with `--json`, else `text`. */
export interface Printable<T> {
  readonly result: T
  readonly text: string
}

export interface SubjectSummary {
  readonly subject: string
  readonly versions: number
  readonly latestId: number
  readonly compatibility: CompatibilityLevel
}

/** All subjects, or those that start with `prefix`. Throws what the registry throws. */
export async function listSchemas(registry: SchemaRegistry, prefix = ''): Promise<Printable<readonly SubjectSummary[]>> {
  const subjects = (await registry.subjects()).filter((subject) => subject.startsWith(prefix)).sort()
  const result: SubjectSummary[] = []
  for (const subject of subjects) {
    const [versions, compatibility] = await Promise.all([registry.versions(subject), registry.compatibility(subject)])
    const latest = versions.at(-1)
    if (latest !== undefined) result.push({ subject, versions: latest.version, latestId: latest.id, compatibility })
  }
  const rows = result.map(({ subject, versions, latestId, compatibility }) => [subject, `v${versions}`, `id ${latestId}`, compatibility])
  return { result, text: result.length === 0 ? 'no subjects' : columns(rows) }
}

/** One version of a subject, the latest when none is given: its columns when it is a table's, and its schema. @throws schema.unknown */
export async function showSchema(
  registry: SchemaRegistry,
  subject: string,
  version?: number,
): Promise<Printable<SchemaVersion & { readonly table: TableSchema | null }>> {
  const found = await versionOf(registry, subject, version)
  const table = tableOrNull(found.schema)
  const title = `${subject} v${found.version} (id ${found.id})`
  const pretty = JSON.stringify(JSON.parse(found.schema), null, 2)
  return { result: { ...found, table }, text: table === null ? `${title}\n${pretty}` : `${title}\n${describeTable(table)}` }
}

export interface SchemaDiff {
  readonly subject: string
  readonly from: number
  readonly to: number
  /** In words; for a table by column, else by the attribute's place in the JSON. */
  readonly changes: readonly string[]
  /** Why data of `from` cannot be read as `to`, and the other way round. */
  readonly backwardBreaks: readonly string[]
  readonly forwardBreaks: readonly string[]
}

/** What changed between two versions of a subject; without versions, between the last two. @throws schema.unknown */
export async function diffSchemas(registry: SchemaRegistry, subject: string, from?: number, to?: number): Promise<Printable<SchemaDiff>> {
  const newer = await versionOf(registry, subject, to)
  const earlier = (await registry.versions(subject)).filter(({ version }) => version < newer.version)
  const older = from === undefined ? (earlier.at(-1) ?? newer) : await versionOf(registry, subject, from)
  const [oldAvro, newAvro] = [parseAvroSchema(older.schema), parseAvroSchema(newer.schema)]
  const [oldTable, newTable] = [tableOrNull(older.schema), tableOrNull(newer.schema)]
  const result: SchemaDiff = {
    subject,
    from: older.version,
    to: newer.version,
    changes: oldTable !== null && newTable !== null ? tableChanges(oldTable, newTable) : jsonChanges(JSON.parse(older.schema), JSON.parse(newer.schema), '$'),
    backwardBreaks: incompatibilities(newAvro, oldAvro),
    forwardBreaks: incompatibilities(oldAvro, newAvro),
  }
  const verdict = (name: string, breaks: readonly string[]) => [
    `${name}: ${breaks.length === 0 ? 'compatible' : 'breaks'}`,
    ...breaks.map((line) => `  ${line}`),
  ]
  const changes = result.changes.length === 0 ? ['  no change'] : result.changes.map((line) => `  ${line}`)
  const lines = [
    `${subject} v${result.from} -> v${result.to}`,
    ...changes,
    ...verdict('backward', result.backwardBreaks),
    ...verdict('forward', result.forwardBreaks),
  ]
  return { result, text: lines.join('\n') }
}

export interface SchemaCheck {
  readonly subject: string
  readonly compatibility: CompatibilityLevel
  readonly compatible: boolean
  readonly breaks: readonly string[]
}

/** What registering `schema` under `subject` would break; registers nothing. @throws schema.invalid */
export async function checkSchema(registry: SchemaRegistry, subject: string, schema: string): Promise<Printable<SchemaCheck>> {
  parseAvroSchema(schema)
  const [breaks, compatibility] = await Promise.all([registry.incompatibilities(subject, schema), registry.compatibility(subject)])
  const result = { subject, compatibility, compatible: breaks.length === 0, breaks }
  const text =
    breaks.length === 0
      ? `${subject}: compatible at level ${compatibility}`
      : `${subject}: breaks level ${compatibility}\n${breaks.map((line) => `  ${line}`).join('\n')}`
  return { result, text }
}

async function versionOf(registry: SchemaRegistry, subject: string, version: number | undefined): Promise<SchemaVersion> {
  const versions = await registry.versions(subject)
  const found = version === undefined ? versions.at(-1) : versions.find((candidate) => candidate.version === version)
  if (found !== undefined) return found
  throw new MillraceError('schema.unknown', `the subject ${subject} has no version ${version ?? 'at all'}`, {
    fix: `it has ${versions.map((candidate) => candidate.version).join(', ') || 'none'}`,
  })
}

/** null for a schema that is not a Millrace envelope: a key's, or someone else's. */
function tableOrNull(schema: string): TableSchema | null {
  try {
    return tableOf(schema)
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'schema.invalid') return null
    throw error
  }
}

function describeTable(table: TableSchema): string {
  const rows = table.columns.map((column, i) => [
    `  ${column.name}`,
    typeText(column.type),
    column.sourceType,
    [table.key.includes(i) ? 'key' : '', ...flags(column)].filter(Boolean).join(', '),
  ])
  return `table ${table.namespace}.${table.name}\n${columns(rows)}`
}

function flags(column: Column): readonly string[] {
  return [column.nullable ? '' : 'not null', column.mayBeUnchanged ? 'may be unchanged' : '', column.maybeSpecial ? 'may be special' : ''].filter(Boolean)
}

function typeText(type: ColumnType): string {
  switch (type.kind) {
    case 'decimal':
      return `decimal(${type.precision},${type.scale})`
    case 'enum':
      return `enum(${type.values.join(', ')})`
    case 'array':
      return `array<${typeText(type.element)}>`
    case 'record':
      return `record<${type.fields.map((field) => `${field.name} ${typeText(field.type)}`).join(', ')}>`
    default:
      return type.kind
  }
}

/** Columns are the same when their ids are: a rename is one change, a drop with an add of the same name are two. */
function tableChanges(before: TableSchema, after: TableSchema): readonly string[] {
  const changes: string[] = []
  const old = new Map(before.columns.map((column) => [column.id, column]))
  for (const column of after.columns) {
    const was = old.get(column.id)
    old.delete(column.id)
    if (was === undefined) {
      changes.push(`+ ${column.name} ${typeText(column.type)}`)
      continue
    }
    if (was.name !== column.name) changes.push(`~ ${was.name} renamed to ${column.name}`)
    if (typeText(was.type) !== typeText(column.type)) changes.push(`~ ${column.name} ${typeText(was.type)} -> ${typeText(column.type)}`)
    else if (was.sourceType !== column.sourceType) changes.push(`~ ${column.name} source type ${was.sourceType} -> ${column.sourceType}`)
    const [had, has] = [flags(was).join(', '), flags(column).join(', ')]
    if (had !== has) changes.push(`~ ${column.name} ${had || 'plain'} -> ${has || 'plain'}`)
  }
  for (const column of old.values()) changes.push(`- ${column.name} ${typeText(column.type)}`)
  const key = (table: TableSchema) => table.key.map((i) => table.columns[i]!.name).join(', ') || 'none'
  if (key(before) !== key(after)) changes.push(`~ key (${key(before)}) -> (${key(after)})`)
  const order = (table: TableSchema, other: TableSchema) =>
    table.columns.filter(({ id }) => other.columns.some((column) => column.id === id)).map(({ id }) => id)
  if (order(before, after).join() !== order(after, before).join()) changes.push('~ columns in another order')
  return changes
}

function jsonChanges(before: unknown, after: unknown, path: string): readonly string[] {
  const isNode = (json: unknown): json is Record<string, unknown> => typeof json === 'object' && json !== null
  if (!isNode(before) || !isNode(after) || Array.isArray(before) !== Array.isArray(after)) {
    return JSON.stringify(before) === JSON.stringify(after) ? [] : [`~ ${path} ${JSON.stringify(before)} -> ${JSON.stringify(after)}`]
  }
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((name) => {
    const at = Array.isArray(before) ? `${path}[${name}]` : `${path}.${name}`
    if (!Object.hasOwn(before, name)) return [`+ ${at} ${JSON.stringify(after[name])}`]
    if (!Object.hasOwn(after, name)) return [`- ${at} ${JSON.stringify(before[name])}`]
    return jsonChanges(before[name], after[name], at)
  })
}

function columns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, i) => cell.padEnd(widths[i]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}
