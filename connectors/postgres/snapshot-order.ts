import type pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'
import type { MappedTable } from './type-mapping.ts'

/** A key column in the order of its index, with the index's own operators and collation: only those make a cursor exact and the index usable. */
interface OrderedColumn {
  readonly attnum: number
  readonly column: string
  readonly type: string
  readonly collation: string | null
  readonly less: string
  readonly equal: string
  readonly greater: string
}

export interface KeyOrder {
  /** Attnums in the order of the index. */
  readonly attnums: readonly number[]
  readonly orderBy: string
  /** The condition for rows after a key, given as texts in the order of `attnums`. */
  after(key: readonly string[]): string
}

const operator = (strategy: number) =>
  `(select pg_catalog.quote_ident(n.nspname) || '.' || o.oprname from pg_catalog.pg_amop m
     join pg_catalog.pg_operator o on o.oid = m.amopopr join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
     where m.amopfamily = c.opcfamily and m.amoplefttype = c.opcintype and m.amoprighttype = c.opcintype and m.amopstrategy = ${strategy})`

const ORDER = `
  select a.attnum::int4 as attnum, pg_catalog.quote_ident(a.attname) as column, pg_catalog.format_type(a.atttypid, -1) as type,
    case when i.indcollation[k] not in (0, a.attcollation)
      then (select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(l.collname) from pg_catalog.pg_collation l
            join pg_catalog.pg_namespace n on n.oid = l.collnamespace where l.oid = i.indcollation[k]) end as collation,
    ${operator(1)} as less, ${operator(3)} as equal, ${operator(5)} as greater
  from pg_catalog.pg_index i
  cross join pg_catalog.generate_series(0, i.indnkeyatts - 1) k
  join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[k]
  join pg_catalog.pg_opclass c on c.oid = i.indclass[k]
  where i.indexrelid = (select x.indexrelid from pg_catalog.pg_index x where x.indrelid = $1 and x.indisvalid
    and case $2 when 'i' then x.indisreplident else x.indisprimary end limit 1)
  order by k`

/** How the rows of a table with a key are put in order: by its identity's index. The session's search path must be pg_catalog alone. */
export async function keyOrder(client: pg.Client, mapped: MappedTable): Promise<KeyOrder> {
  const { rows } = await client.query<OrderedColumn>(ORDER, [mapped.oid, mapped.replicaIdentity])
  if (rows.length !== mapped.table.key.length || rows.some(({ less, equal, greater }) => less === null || equal === null || greater === null)) {
    throw new MillraceError('source.schema_unsupported', `the key of ${mapped.table.namespace}.${mapped.table.name} has no btree index to read it in order`, {
      fix: 'give the table a primary key, or a REPLICA IDENTITY USING INDEX of an ordinary unique index',
    })
  }
  return {
    attnums: rows.map(({ attnum }) => attnum),
    orderBy: rows.map((row) => `${collated(row, row.column)} USING OPERATOR(${row.less})`).join(', '),
    after: (key) =>
      afterKey(
        rows,
        key.map((text, i) => `${literal(text)}::${rows[i]!.type}`),
      ),
  }
}

const collated = (row: OrderedColumn, expression: string) => (row.collation === null ? expression : `${expression} COLLATE ${row.collation}`)

function afterKey(rows: readonly OrderedColumn[], values: readonly string[]): string {
  const { greater } = rows[0]!
  const columns = rows.map((row) => collated(row, row.column))
  if (rows.length === 1) return `${columns[0]} OPERATOR(${greater}) ${values[0]}`
  // one operator for all columns: a row comparison, which an index answers
  if (rows.every((row) => row.greater === greater)) return `ROW(${columns.join(', ')}) OPERATOR(${greater}) ROW(${values.join(', ')})`
  const alternatives = rows.map((row, i) => {
    const equals = rows.slice(0, i).map((before, j) => `${columns[j]} OPERATOR(${before.equal}) ${values[j]}`)
    return `(${[...equals, `${columns[i]} OPERATOR(${row.greater}) ${values[i]}`].join(' AND ')})`
  })
  return `(${alternatives.join(' OR ')})`
}

/** A string literal that means the same whatever standard_conforming_strings is. */
export function literal(text: string): string {
  const doubled = text.replaceAll("'", "''")
  return text.includes('\\') ? `E'${doubled.replaceAll('\\', '\\\\')}'` : `'${doubled}'`
}

export function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}
