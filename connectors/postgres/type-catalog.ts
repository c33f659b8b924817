import type pg from 'pg'
import { arrayOf, hstore, multirangeOf, rangeOf, recordOf, vector } from './type-container.ts'
import { date, time, timestamp, timestamptz, timetz } from './type-datetime.ts'
import { interval } from './type-interval.ts'
import { boolean, decimal, float4, float8, int2, int4, int8, money, unboundedNumeric, unsigned4, xid8 } from './type-number.ts'
import { type TypeReader, textual } from './type-reader.ts'
import * as text from './type-text.ts'

/** Types of the server whose oids never change; src/include/catalog/pg_type.dat of PostgreSQL. */
const BUILT_IN: ReadonlyMap<number, TypeReader> = new Map([
  [16, boolean],
  [17, text.bytea],
  [18, text.singleByte],
  [19, text.text],
  [20, int8],
  [21, int2],
  [23, int4],
  [25, text.text],
  [26, unsigned4],
  [27, text.tid],
  [28, unsigned4],
  [29, unsigned4],
  [114, text.json],
  [142, text.text],
  [600, text.point],
  [601, text.lseg],
  [602, text.path],
  [603, text.box],
  [604, text.polygon],
  [628, text.line],
  [650, text.network],
  [700, float4],
  [701, float8],
  [718, text.circle],
  [774, text.macaddr8],
  [829, text.macaddr],
  [869, text.network],
  [1042, text.text],
  [1043, text.text],
  [1082, date],
  [1083, time],
  [1114, timestamp],
  [1184, timestamptz],
  [1186, interval],
  [1266, timetz],
  [1560, text.bits],
  [1562, text.bits],
  [1790, text.text],
  [2950, text.uuid],
  [3220, text.pgLsn],
  [3614, text.tsvector],
  [3802, text.jsonb],
  [4072, text.versionedText],
  [5069, xid8],
])

const NUMERIC = 1700
const MONEY = 790

/** Types of extensions, by the function that writes their binary form: it alone says what the bytes are. */
const BY_SEND_FUNCTION: ReadonlyMap<string, TypeReader> = new Map([
  ['citextsend', text.text],
  ['textsend', text.text],
  ['varcharsend', text.text],
  ['hstore_send', hstore],
  ['ltree_send', text.versionedText],
  ['lquery_send', text.versionedText],
  ['ltxtq_send', text.versionedText],
  ['vector_send', vector],
])

/** Anything else: a string in the text of its output function, asked for as text. */
const UNKNOWN = textual(null)

/** What the catalog says about a type that is not built in. */
interface CatalogType {
  readonly oid: number
  readonly kind: string
  readonly category: string
  readonly length: number
  readonly element: number
  readonly base: number
  readonly base_modifier: number
  readonly base_dimensions: number
  readonly delimiter: string
  readonly send: string | null
  readonly subtype: number | null
  readonly labels: readonly string[] | null
  readonly fields: readonly { readonly name: string; readonly type: number; readonly modifier: number; readonly dimensions: number }[] | null
}

const TYPES = `
  select t.oid::int8::float8 as oid, t.typtype::text as kind, t.typcategory::text as category, t.typlen::int4 as length, t.typelem::int8::float8 as element,
    t.typbasetype::int8::float8 as base, t.typtypmod as base_modifier, t.typndims as base_dimensions, (select typdelim::text from pg_catalog.pg_type e where e.oid = t.typelem) as delimiter,
    (select proname::text from pg_catalog.pg_proc p where p.oid = t.typsend) as send,
    (select r.rngsubtype::int8::float8 from pg_catalog.pg_range r where t.oid in (r.rngtypid, r.rngmultitypid)) as subtype,
    (select json_agg(e.enumlabel order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = t.oid) as labels,
    (select json_agg(json_build_object('name', a.attname, 'type', a.atttypid::int8, 'modifier', a.atttypmod, 'dimensions', a.attndims) order by a.attnum)
      from pg_catalog.pg_attribute a where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) as fields
  from pg_catalog.pg_type t where t.oid = any($1::oid[])`

/** How the types of some columns are read. Resolved once per description of a table. */
export class TypeCatalog {
  readonly #types: ReadonlyMap<number, CatalogType>
  readonly #moneyScale: number

  private constructor(types: ReadonlyMap<number, CatalogType>, moneyScale: number) {
    this.#types = types
    this.#moneyScale = moneyScale
  }

  /** Loads what is needed to read types with these oids: one query per level of nesting, none for built-in ones. */
  static async load(client: pg.ClientBase, oids: readonly number[]): Promise<TypeCatalog> {
    const types = new Map<number, CatalogType>()
    let wanted = [...new Set(oids)]
    let needsMoney = wanted.includes(MONEY)
    for (;;) {
      wanted = [...new Set(wanted)].filter((oid) => oid !== 0 && !BUILT_IN.has(oid) && oid !== NUMERIC && oid !== MONEY && !types.has(oid))
      if (wanted.length === 0) break
      const { rows } = await client.query<CatalogType>(TYPES, [wanted])
      const asked = wanted
      wanted = []
      for (const row of rows) {
        types.set(row.oid, row)
        wanted.push(row.element, row.base, row.subtype ?? 0, ...(row.fields ?? []).map((field) => field.type))
      }
      needsMoney ||= wanted.includes(MONEY)
      if (rows.length < asked.length && rows.length === 0) break
    }
    const moneyScale = needsMoney ? (await client.query<{ scale: number }>('select pg_catalog.scale(0::money::numeric) as scale')).rows[0]!.scale : 2
    return new TypeCatalog(types, moneyScale)
  }

  /** The reader of a type with its modifier (-1: none) and declared array dimensions. */
  reader(oid: number, modifier: number, dimensions: number): TypeReader {
    const builtIn = BUILT_IN.get(oid)
    if (builtIn !== undefined) return builtIn
    if (oid === NUMERIC) return numericReader(modifier)
    if (oid === MONEY) return money(this.#moneyScale)
    const type = this.#types.get(oid)
    if (type === undefined) return UNKNOWN
    switch (type.kind) {
      case 'd':
        return this.reader(type.base, type.base_modifier, type.base_dimensions)
      case 'e':
        return textual('same', undefined, { kind: 'enum', values: type.labels ?? [] })
      case 'r':
        return rangeOf(this.reader(type.subtype!, -1, 0))
      case 'm':
        return multirangeOf(this.reader(type.subtype!, -1, 0))
      case 'c':
        return recordOf((type.fields ?? []).map((field) => ({ name: field.name, reader: this.reader(field.type, field.modifier, field.dimensions) })))
    }
    // int2vector and oidvector are fixed arrays with a text of their own
    if (type.category === 'A' && type.element !== 0 && type.length === -1 && type.send === 'array_send') {
      return arrayOf(this.reader(type.element, modifier, 0), type.delimiter, dimensions)
    }
    return (type.send === null ? undefined : BY_SEND_FUNCTION.get(type.send)) ?? UNKNOWN
  }

  /** Asked for in binary, a value comes in a form that is known: its binary one, or text where the type has none. */
  isBinaryReadable(oid: number): boolean {
    return !this.#breaksBinary(oid) && (this.reader(oid, -1, 0).binary !== null || !this.#hasBinary(oid))
  }

  /** Postgres has a binary form of the type: without one it sends text whatever was asked for, or fails inside a container. */
  #hasBinary(oid: number): boolean {
    const type = this.#types.get(oid)
    return type === undefined || type.send !== null
  }

  /** A part of a container has no binary form: asked for in binary, the server fails. */
  #breaksBinary(oid: number): boolean {
    const type = this.#types.get(oid)
    if (type === undefined) return false
    if (type.kind === 'd') return this.#breaksBinary(type.base)
    const parts = [type.subtype ?? 0, ...(type.fields ?? []).map((field) => field.type), ...(type.category === 'A' ? [type.element] : [])].filter(
      (part) => part !== 0,
    )
    return parts.some((part) => !this.#hasBinary(part) || this.#breaksBinary(part))
  }
}

/** Most digits of an Avro and an Iceberg decimal. */
const MAX_PRECISION = 38

function numericReader(modifier: number): TypeReader {
  if (modifier < 4) return unboundedNumeric
  const packed = modifier - 4
  const precision = (packed >> 16) & 0xffff
  // 11 bits, signed: Postgres 15 has negative scales
  const scale = ((packed & 0x7ff) ^ 1024) - 1024
  const digits = scale < 0 ? precision - scale : Math.max(precision, scale)
  return digits > MAX_PRECISION ? unboundedNumeric : decimal(digits, Math.max(0, scale))
}
