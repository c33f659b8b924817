import { MillraceError, TablePatterns, type TableSchema, tableId } from '../../core/plugin.ts'
import type { CockroachdbConfig } from './cockroachdb-config.ts'
import { canBeSpecial, columnType } from './column-types.ts'
import { endOf, parseHlc } from './hlc.ts'
import { literal, quoted, type SqlSession } from './sql-session.ts'

/** A captured table as it was at some time. */
export interface CatalogTable {
  readonly schema: TableSchema
  /** Its name in SQL and in messages. */
  readonly sqlName: string
  readonly topics: readonly string[]
  /** Indexes of the key's columns in the order of the primary index. */
  readonly keyOrder: readonly number[]
  /** Ids of columns that rows from before them have a value of: with a default, or computed. */
  readonly filled: ReadonlySet<number>
}

export type Catalog = ReadonlyMap<string, CatalogTable>

/** Virtual computed columns are in no message. Hidden ones are: the row id of a table without a primary key. */
const COLUMNS = `
  SELECT c.table_schema, c.table_name, r.oid::STRING, c.column_name, a.attnum::STRING, c.crdb_sql_type,
    COALESCE(e.typtype, t.typtype) = 'e', a.attnotnull, c.column_default IS NOT NULL OR a.attgenerated <> '', k.ordinal_position::STRING
  FROM information_schema.columns c
  JOIN pg_catalog.pg_namespace n ON n.nspname = c.table_schema
  JOIN pg_catalog.pg_class r ON r.relnamespace = n.oid AND r.relname = c.table_name AND r.relkind = 'r'
  JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attname = c.column_name AND a.attgenerated <> 'v'
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
  LEFT JOIN information_schema.table_constraints p
    ON p.table_schema = c.table_schema AND p.table_name = c.table_name AND p.constraint_type = 'PRIMARY KEY'
  LEFT JOIN information_schema.key_column_usage k ON k.constraint_schema = p.constraint_schema AND k.constraint_name = p.constraint_name
    AND k.table_name = p.table_name AND k.column_name = c.column_name`

/** Describes the captured tables. A shape that is the same is the same object. */
export class CatalogReader {
  readonly #sql: SqlSession
  readonly #config: CockroachdbConfig
  readonly #patterns: TablePatterns
  readonly #known = new Map<string, { readonly signature: string; readonly table: CatalogTable }>()

  constructor(sql: SqlSession, config: CockroachdbConfig) {
    this.#sql = sql
    this.#config = config
    this.#patterns = new TablePatterns(config.tables)
  }

  /** The tables at the end of a nanosecond, by `schema.table`. */
  async at(wall: bigint): Promise<Catalog> {
    const rows = await this.#sql.query(
      'to list tables and columns',
      `${COLUMNS} AS OF SYSTEM TIME ${literal(endOf(wall))} WHERE c.table_catalog = current_database() ORDER BY 1, 2, a.attnum`,
    )
    const database = (await this.#database())!
    const captured = rows.filter(([namespace, name]) => this.#patterns.matches(namespace!, name!))
    const byTable = Map.groupBy(captured, ([namespace, name]) => tableId({ namespace: namespace!, name: name! }))
    const tables = new Map<string, CatalogTable>()
    for (const [id, columns] of byTable) {
      const [first, other] = [...new Set(columns.map(([namespace, name]) => `"${namespace}"."${name}"`))]
      if (other !== undefined) {
        throw new MillraceError('source.schema_unsupported', `${first} and ${other} are both called ${id} here, since their names have dots`, {
          fix: `rename one of them, or its schema; or leave out both, with '!${id}' in tables`,
        })
      }
      const signature = JSON.stringify(columns)
      const known = this.#known.get(id)
      const table = known?.signature === signature ? known.table : describe(database, columns, this.#config.unrepresentable === 'text')
      this.#known.set(id, { signature, table })
      tables.set(id, table)
    }
    return tables
  }

  /** The cluster's time. */
  async now(): Promise<bigint> {
    const [row] = await this.#sql.query('to ask for the time', 'SELECT cluster_logical_timestamp()::STRING')
    const at = parseHlc(row?.[0] ?? '')
    if (at === null) throw new MillraceError('source.protocol', 'cluster_logical_timestamp() gave no timestamp')
    return at.wall
  }

  #named: Promise<string | null> | null = null
  #database(): Promise<string | null> {
    this.#named ??= this.#sql.query('to ask for the database', 'SELECT current_database()').then(([row]) => row?.[0] ?? null)
    this.#named.catch(() => {
      this.#named = null
    })
    return this.#named
  }
}

function describe(database: string, rows: readonly (readonly (string | null)[])[], text: boolean): CatalogTable {
  const [namespace, name, oid] = rows[0]! as readonly [string, string, string]
  const isTrue = (value: string | null | undefined) => value === 't' || value === 'true'
  const keyed = rows.map((row, index) => ({ index, place: row[9] })).filter(({ place }) => place !== null)
  const keyOrder = keyed.sort((a, b) => Number(a.place) - Number(b.place)).map(({ index }) => index)
  const key = [...keyOrder].sort((a, b) => a - b)
  const columns = rows.map(([, , , column, id, sqlType, isEnum, notNull], index) => {
    const type = columnType(sqlType!, isTrue(isEnum))
    return {
      name: column!,
      id: Number(id),
      type,
      sourceType: sqlType!,
      nullable: !isTrue(notNull),
      mayBeUnchanged: false,
      maybeSpecial: text && !key.includes(index) && canBeSpecial(type),
    }
  })
  const parts = [database, namespace, name]
  const sqlName = parts.map(quoted).join('.')
  return {
    schema: { namespace, name, columns, key, incarnation: oid },
    sqlName,
    // as full_table_name writes it: quoted where SQL needs that
    topics: [parts.join('.'), sqlName, parts.map((part) => (/^[a-z_][a-z0-9_]*$/.test(part) ? part : quoted(part))).join('.')],
    keyOrder,
    filled: new Set(rows.filter((row) => isTrue(row[8])).map((row) => Number(row[4]))),
  }
}
