/** The neutral description of a table: what sources produce, schemas are derived from and sinks create targets from. */

/**
 * The type of a column, and the JavaScript value that stands for it in a {@link Tuple}.
 *
 * | kind | JavaScript value | Avro |
 * |---|---|---|
 * | boolean | boolean | boolean |
 * | int32 | number | int |
 * | int64 | bigint | long |
 * | float32, float64 | number | float, double |
 * | decimal | bigint, unscaled | bytes, decimal(precision, scale) |
 * | string | string | string |
 * | bytes | Uint8Array | bytes |
 * | uuid | string, lower case with dashes | string, uuid |
 * | json | string, the source's own text | string |
 * | enum | string | string |
 * | date | number, days since 1970-01-01 | int, date |
 * | time | bigint, microseconds since midnight | long, time-micros |
 * | timestamp | bigint, microseconds since 1970-01-01T00:00 of a wall clock without zone | long, local-timestamp-micros |
 * | timestamptz | bigint, microseconds since 1970-01-01T00:00Z | long, timestamp-micros |
 * | array | array of element values or null | array of ["null", element] |
 * | record | array of field values or null, in field order | record of nullable fields |
 * | map | Map<string, string \| null> | map of ["null", "string"] |
 *
 * What no kind holds exactly (intervals, ranges, bit strings, money, network and geometric types, unbounded numerics) is a `string` in the
 * source's own text, with the source's type in {@link Column.sourceType}.
 */
export type ColumnType =
  | { readonly kind: ScalarKind }
  | { readonly kind: 'decimal'; readonly precision: number; readonly scale: number }
  | { readonly kind: 'enum'; readonly values: readonly string[] }
  | { readonly kind: 'array'; readonly element: ColumnType }
  | { readonly kind: 'record'; readonly fields: readonly { readonly name: string; readonly type: ColumnType }[] }
  | { readonly kind: 'map' }

export type ScalarKind =
  | 'boolean'
  | 'int32'
  | 'int64'
  | 'float32'
  | 'float64'
  | 'string'
  | 'bytes'
  | 'uuid'
  | 'json'
  | 'date'
  | 'time'
  | 'timestamp'
  | 'timestamptz'

export interface Column {
  /** The name in the source, unaltered; Avro names are derived in `avro-mapping`. */
  readonly name: string
  /** Identity that survives a rename (Postgres: attnum); a dropped and re-added column gets a new one. */
  readonly id: number
  readonly type: ColumnType
  /** The type as the source writes it: `numeric(12,2)`, `int4range`. For people and for sinks of the same family. */
  readonly sourceType: string
  /** The source's own NOT NULL. Every column outside the key is nullable in Avro all the same, so that schemas can evolve. */
  readonly nullable: boolean
  /** The source may leave the value out of an update (Postgres: out-of-line TOAST). Adds the `Unchanged` branch to its Avro union. */
  readonly mayBeUnchanged: boolean
  /** The column can hold values its Avro type cannot (infinity, NaN) and they travel as text. Adds the `Special` branch. */
  readonly maybeSpecial: boolean
}

export interface TableSchema {
  /** Schema (Postgres), database (MySQL) or keyspace (Cassandra). */
  readonly namespace: string
  readonly name: string
  readonly columns: readonly Column[]
  /** Indexes into `columns`, rising. Empty: the table has no key. */
  readonly key: readonly number[]
  /** Another one when the table was dropped and made again under its name (Postgres: oid). Only sources know it; it does not travel. */
  readonly incarnation?: string
}

/** Values aligned with `TableSchema.columns`. */
export type Tuple = readonly Value[]

/** SQL NULL is `null`; a value that the source did not send is {@link UNCHANGED}; what the type can't hold is {@link Special}. */
export type Value = null | boolean | number | bigint | string | Uint8Array | readonly Value[] | ReadonlyMap<string, string | null> | Special | typeof UNCHANGED

/** Stands where the source did not send a column: the sink keeps what it has. Never NULL, never data. */
export const UNCHANGED: unique symbol = Symbol('unchanged')

/** A value of the source that its column's Avro type cannot hold, in the source's text: `infinity`, `NaN`. */
export class Special {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** `namespace.name`, the table's name in messages, YAML and topic names. */
export function tableId(table: Pick<TableSchema, 'namespace' | 'name'>): string {
  return `${table.namespace}.${table.name}`
}
