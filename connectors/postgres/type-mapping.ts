import type pg from 'pg'
import { type Column, MillraceError, type TableSchema } from '../../core/plugin.ts'
import { placeColumns, type RelationColumn } from './relation-columns.ts'
import { TypeCatalog } from './type-catalog.ts'
import type { TypeReader, WireReader } from './type-reader.ts'

export type { WireReader } from './type-reader.ts'

export interface TypeMappingOptions {
  /** `text`: values that their Avro type cannot hold (infinity, NaN, arrays of several dimensions) travel as text in a branch of their own. */
  readonly unrepresentable: 'error' | 'text'
}

export interface MappedColumn {
  readonly column: Column
  /** Throws `source.schema_unsupported` for a type whose binary form is not known. */
  readonly binary: WireReader
  readonly text: WireReader
  /** `false`: when binary is asked for, the server sends a form that is not known, or fails; the column must be asked for as text. */
  readonly binaryReadable: boolean
  /** How the column's values are written as text and what their type is; for cursors and casts. */
  readonly reader: TypeReader
  readonly typeOid: number
}

export interface MappedTable {
  readonly oid: number
  readonly table: TableSchema
  /** Aligned with `table.columns`. */
  readonly columns: readonly MappedColumn[]
  readonly replicaIdentity: 'd' | 'n' | 'f' | 'i'
}

/** What pgoutput's Relation message says of a table. */
export interface StreamedTable {
  readonly namespace: string
  readonly name: string
  /** As it was when the message was written: d, n, f or i. */
  readonly replicaIdentity: string
  readonly columns: readonly RelationColumn[]
  /** Its last shape that the log knows; null: none. */
  readonly before: TableSchema | null
}

/**
 * Settings of a session (startup parameters) under which the text form of every type is the one that the readers know. `IntervalStyle`, `bytea_output` and
 * `lc_monetary` may be anything.
 */
export const SESSION_SETTINGS = {
  client_encoding: 'UTF8',
  DateStyle: 'ISO',
  TimeZone: 'UTC',
  extra_float_digits: '1',
} as const

/** The repair where `binary: true` asks for what the server, or Millrace, does not have. */
export const TEXT_FIX = 'set `binary: auto` on the source, or leave it out: then the stream comes as text where a type needs it'

interface AttributeRow {
  readonly oid: number
  readonly namespace: string
  readonly name: string
  readonly identity: 'd' | 'n' | 'f' | 'i'
  readonly attnum: number
  readonly attname: string
  readonly type: number
  readonly modifier: number
  /** null: the type in the stream is another than the catalog's. */
  readonly formatted: string | null
  readonly not_null: boolean
  /** Values may lie outside of their row, also when the column's storage is plain by now: an update does not send those that it leaves as they are. */
  readonly toastable: boolean
  readonly generated: boolean
  readonly dimensions: number
  readonly dropped: boolean
  readonly in_primary: boolean
  readonly in_identity: boolean
}

// Types outside pg_catalog are named with their schema whatever the session's search path is.
const FORMATTED = `case when t.oid is null then '' when tn.nspname <> 'pg_catalog' and pg_catalog.pg_type_is_visible(t.oid) then pg_catalog.quote_ident(tn.nspname) || '.' else '' end
      || coalesce(pg_catalog.format_type(a.atttypid, a.atttypmod), '')`

const TOASTABLE = `coalesce(t.typlen = -1 and t.typstorage <> 'p', true)`

const ATTRIBUTES = `
  select c.oid::int8::float8 as oid, n.nspname::text as namespace, c.relname::text as name, c.relreplident::text as identity, a.attnum::int4 as attnum, a.attname::text as attname,
    a.atttypid::int8::float8 as type, a.atttypmod as modifier, a.attnotnull as not_null, ${TOASTABLE} as toastable, a.attgenerated <> '' as generated,
    a.attndims::int4 as dimensions, a.attisdropped as dropped,
    ${FORMATTED} as formatted,
    exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary and i.indisvalid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])) as in_primary,
    exists (select from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisvalid and i.indimmediate and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])
      and case c.relreplident when 'd' then i.indisprimary when 'i' then i.indisreplident else false end) as in_identity
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0
  left join pg_catalog.pg_type t on t.oid = a.atttypid
  left join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace
  where c.oid = any($1::oid[]) and c.relkind in ('r', 'p')
  order by c.oid, a.attnum`

const NONE: ReadonlySet<number> = new Set()

/**
 * Describes a table from the catalog. For a stream: with the name of the Relation message, its columns, in its order, with the types that they had when it was
 * written and its replica identity of then; `placeColumns` finds their identity (attnum). Without `streamed`: the columns of the table, generated ones only when their attnum is in `generated`.
 * @throws source.table_gone
 */
export async function describeTable(
  client: pg.ClientBase,
  oid: number,
  options: TypeMappingOptions,
  streamed?: StreamedTable,
  generated: ReadonlySet<number> = NONE,
): Promise<MappedTable> {
  const { rows } = await client.query<AttributeRow>(ATTRIBUTES, [[oid]])
  const [first] = rows
  if (first === undefined) {
    throw new MillraceError('source.table_gone', `the table with oid ${oid} is no longer in the catalog, so its last changes cannot be described`, {
      fix: 'drop its targets; or, when it was made again, wait: it is read anew by itself',
    })
  }
  const attributes =
    streamed === undefined
      ? rows.filter((row) => !row.dropped && (!row.generated || generated.has(row.attnum)))
      : await nameTypes(client, matchRelation(rows, streamed))
  const catalog = await TypeCatalog.load(
    client,
    attributes.map(({ type }) => type),
  )
  return mapTable({ ...first, ...streamed, identity: (streamed?.replicaIdentity ?? first.identity) as AttributeRow['identity'] }, attributes, catalog, options)
}

/** Describes tables from the catalog, without generated columns: those that are there, by oid. */
export async function describeTables(client: pg.ClientBase, oids: readonly number[], options: TypeMappingOptions): Promise<ReadonlyMap<number, MappedTable>> {
  if (oids.length === 0) return new Map()
  const { rows } = await client.query<AttributeRow>(ATTRIBUTES, [oids])
  const catalog = await TypeCatalog.load(
    client,
    rows.map(({ type }) => type),
  )
  const described = new Map<number, MappedTable>()
  for (const [oid, own] of Map.groupBy(rows, (row) => row.oid)) {
    const attributes = own.filter(({ dropped, generated }) => !dropped && !generated)
    described.set(oid, mapTable(own[0]!, attributes, catalog, options))
  }
  return described
}

/** A column whose values must be asked for as text. */
export interface TextColumn {
  readonly name: string
  readonly type: string
}

/** The columns of tables that are not `binaryReadable`, by the table's oid; without generated ones. */
export async function textColumns(client: pg.ClientBase, oids: readonly number[]): Promise<ReadonlyMap<number, readonly TextColumn[]>> {
  const attributes = `from pg_catalog.pg_attribute a where a.attrelid = any($1::oid[]) and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''`
  const { rows: types } = await client.query<{ type: number }>(`select distinct a.atttypid::int8::float8 as type ${attributes}`, [oids])
  const asked = types.map(({ type }) => type)
  const catalog = await TypeCatalog.load(client, asked)
  const unreadable = asked.filter((type) => !catalog.isBinaryReadable(type))
  if (unreadable.length === 0) return new Map()
  const { rows } = await client.query<TextColumn & { oid: number }>(
    `select a.attrelid::int8::float8 as oid, a.attname::text as name, pg_catalog.format_type(a.atttypid, a.atttypmod) as type ${attributes} and a.atttypid = any($2::oid[])
      order by a.attrelid, a.attnum`,
    [oids, unreadable],
  )
  return Map.groupBy(rows, ({ oid }) => oid)
}

function mapTable(
  { oid, namespace, name, identity }: Pick<AttributeRow, 'oid' | 'namespace' | 'name' | 'identity'>,
  attributes: readonly AttributeRow[],
  catalog: TypeCatalog,
  options: TypeMappingOptions,
): MappedTable {
  const isKey = (row: AttributeRow) => (identity === 'f' ? row.in_primary : row.in_identity)
  const columns = attributes.map((row): MappedColumn => mapColumn(row, isKey(row), identity, catalog, options))
  return {
    oid,
    replicaIdentity: identity,
    columns,
    table: {
      namespace,
      name,
      columns: columns.map(({ column }) => column),
      key: attributes.flatMap((row, i) => (isKey(row) ? [i] : [])),
      incarnation: String(oid),
    },
  }
}

function mapColumn(row: AttributeRow, key: boolean, identity: string, catalog: TypeCatalog, options: TypeMappingOptions): MappedColumn {
  const reader = catalog.reader(row.type, row.modifier, row.dimensions)
  const column: Column = {
    name: row.attname,
    id: row.attnum,
    type: reader.type,
    sourceType: row.formatted ?? '',
    nullable: !row.not_null,
    mayBeUnchanged: row.toastable && identity !== 'f' && !key,
    maybeSpecial: options.unrepresentable === 'text' && reader.canBeSpecial && !key,
  }
  return {
    column,
    binary: reader.binary ?? undecodable(column),
    text: reader.text,
    binaryReadable: catalog.isBinaryReadable(row.type),
    reader,
    typeOid: row.type,
  }
}

function undecodable({ name, sourceType }: Column): WireReader {
  return () => {
    throw new MillraceError('source.schema_unsupported', `column ${name}: the binary form of ${sourceType} is not known to Millrace`, {
      fix: TEXT_FIX,
    })
  }
}

function matchRelation(rows: readonly AttributeRow[], { columns, before }: StreamedTable): readonly AttributeRow[] {
  const inLog = new Map((before?.columns ?? []).map(({ name, id }) => [name, id]))
  const byId = new Map(rows.map((row) => [row.attnum, row]))
  return placeColumns(columns, rows, inLog).map((attnum, i) => {
    const { name, typeOid, typeModifier, key } = columns[i]!
    // of a column that is lost nothing is known but what the stream says
    const known = byId.get(attnum) ?? { ...rows[0]!, attnum, not_null: false, toastable: true, generated: false, dimensions: 0, in_primary: false }
    const same = known.type === typeOid && known.modifier === typeModifier
    return { ...known, attname: name, type: typeOid, modifier: typeModifier, formatted: same ? known.formatted : null, in_identity: key }
  })
}

/** Names the types that columns had in the stream and have no longer. */
async function nameTypes(client: pg.ClientBase, attributes: readonly AttributeRow[]): Promise<readonly AttributeRow[]> {
  const open = attributes.filter(({ formatted }) => formatted === null)
  if (open.length === 0) return attributes
  const { rows } = await client.query<{ formatted: string; toastable: boolean }>(
    `select ${FORMATTED} as formatted, ${TOASTABLE} as toastable from unnest($1::oid[], $2::int4[]) with ordinality as a (atttypid, atttypmod, place)
     left join pg_catalog.pg_type t on t.oid = a.atttypid left join pg_catalog.pg_namespace tn on tn.oid = t.typnamespace order by a.place`,
    [open.map(({ type }) => type), open.map(({ modifier }) => modifier)],
  )
  return attributes.map((row) => (row.formatted === null ? { ...row, ...rows[open.indexOf(row)]! } : row))
}
