import { MillraceError, type TablePatterns } from '../../core/plugin.ts'
import type { ColumnDescription, TableDescription } from './commit-log-events.ts'
import type { CqlClient } from './cql-client.ts'
import { type CqlType, parseCqlType } from './cql-type.ts'

/** What `system_schema` says of a table, with what decides whether it is captured. */
export interface CatalogTable {
  readonly description: TableDescription
  readonly cdc: boolean
  /** Its pattern matches, whatever else may be wrong with it. */
  readonly wanted: boolean
  readonly hasCounters: boolean
  /** Milliseconds since epoch when a column of that name was dropped, by name. */
  readonly droppedAt: ReadonlyMap<string, number>
  /** When a node truncated it last, in milliseconds by its clock; 0: never. */
  readonly truncatedAt: number
  /** A type that cannot be read; null: all can. */
  readonly unreadable: MillraceError | null
}

type Row = Readonly<Record<string, unknown>>

/** Keyspaces of the server itself are never captured. */
function isSystem(keyspace: string): boolean {
  return /^system(_|$)/.test(keyspace)
}

/** Every table and materialized view of the cluster, since the log has changes of all of them. */
export async function readCatalog(client: CqlClient, patterns: TablePatterns): Promise<readonly CatalogTable[]> {
  const doing = 'to look at the tables'
  const [nodes, tables, views, columns, dropped, types] = await Promise.all([
    client.ofEachNode(doing, "SELECT truncated_at FROM system.local WHERE key = 'local'"),
    client.rows(doing, 'SELECT keyspace_name, table_name, id, cdc FROM system_schema.tables'),
    client.rows(doing, 'SELECT keyspace_name, view_name AS table_name, id FROM system_schema.views'),
    client.rows(doing, 'SELECT keyspace_name, table_name, column_name, kind, position, clustering_order, type FROM system_schema.columns'),
    client.rows(doing, 'SELECT keyspace_name, table_name, column_name, kind, type, dropped_time FROM system_schema.dropped_columns'),
    client.rows(doing, 'SELECT keyspace_name, type_name, field_names, field_types FROM system_schema.types'),
  ])
  const name = (row: Row) => `${row.keyspace_name}.${row.table_name}`
  const columnsOf = Map.groupBy(columns, name)
  const droppedOf = Map.groupBy(dropped, name)
  const userTypes = new Map(types.map((row) => [`${row.keyspace_name}.${row.type_name}`, row]))
  const truncations = lastTruncations(nodes)
  const found: CatalogTable[] = []
  for (const row of [...tables, ...views]) {
    const keyspace = String(row.keyspace_name)
    const typesOf = (type: string) => {
      const one = userTypes.get(`${keyspace}.${type}`)
      return one === undefined ? undefined : { fieldNames: one.field_names as string[], fieldTypes: one.field_types as string[] }
    }
    let unreadable: MillraceError | null = null
    const describe = (column: Row, isDropped: boolean): ColumnDescription => {
      let type: CqlType = { kind: 'native', name: 'blob' }
      try {
        type = parseCqlType(String(column.type), typesOf)
      } catch (error) {
        if (!(error instanceof MillraceError)) throw error
        unreadable = error
      }
      return {
        name: String(column.column_name),
        kind: column.kind as ColumnDescription['kind'],
        position: isDropped ? -1 : Number(column.position),
        type,
        reversed: column.clustering_order === 'desc',
        dropped: isDropped,
      }
    }
    const present = (columnsOf.get(name(row)) ?? []).map((column) => describe(column, false))
    const gone = (droppedOf.get(name(row)) ?? []).map((column) => describe(column, true))
    const hasCounters = present.some(({ type }) => type.kind === 'native' && type.name === 'counter')
    const cdc = row.cdc === true
    const wanted = !isSystem(keyspace) && patterns.matches(keyspace, String(row.table_name))
    found.push({
      description: {
        id: String(row.id),
        keyspace,
        name: String(row.table_name),
        captured: wanted && cdc && !hasCounters && unreadable === null,
        columns: [...present.sort(inOrder), ...gone],
      },
      cdc,
      wanted,
      hasCounters,
      droppedAt: new Map((droppedOf.get(name(row)) ?? []).map((column) => [String(column.column_name), Number(column.dropped_time)])),
      truncatedAt: truncations.get(String(row.id)) ?? 0,
      unreadable,
    })
  }
  return found
}

/** Of all nodes, by table. A value is a place in the node's log (12 bytes), and the time. */
function lastTruncations(nodes: readonly Row[]): ReadonlyMap<string, number> {
  const last = new Map<string, number>()
  for (const { truncated_at } of nodes) {
    for (const [id, value] of (truncated_at ?? new Map()) as ReadonlyMap<unknown, Buffer>) {
      const at = Number(value.readBigInt64BE(12))
      if (at > (last.get(String(id)) ?? 0)) last.set(String(id), at)
    }
  }
  return last
}

const KINDS = ['partition_key', 'clustering', 'static', 'regular']

/** As `SELECT *` has them: the catalog keeps no other order. */
function inOrder(a: ColumnDescription, b: ColumnDescription): number {
  return KINDS.indexOf(a.kind) - KINDS.indexOf(b.kind) || a.position - b.position || (a.name < b.name ? -1 : 1)
}
