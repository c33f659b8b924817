import type pg from 'pg'
import { MillraceError, type TablePatterns } from '../../core/plugin.ts'
import { PARTITIONS, type Partition, partitionTree } from './partitions.ts'

/** Others wait behind our lock at most this long, and we behind theirs; then it is tried again later. */
const LOCK_TIMEOUT_MS = 1000

export interface SourceTable {
  readonly oid: number
  readonly namespace: string
  readonly name: string
  readonly published: boolean
  /** Updates and deletes can name their row: by a key, an index or the whole row; of a partitioned table, in every partition. */
  readonly identified: boolean
  /** Replica identity full. */
  readonly fullRows: boolean
  /** Changes when columns, keys or the replica identity do. */
  readonly fingerprint: string
  /** null: not partitioned. */
  readonly partitions: readonly Partition[] | null
}

export interface Publication {
  readonly name: string
  readonly oid: number
  readonly allTables: boolean
  /** Made by Millrace, so it may be dropped. */
  readonly own: boolean
  /** What it leaves out, in words: kinds of changes, rows, columns. Empty: nothing. */
  readonly omits: readonly string[]
}

const COMMENT = 'made by millrace'

export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

export async function findPublication(client: pg.ClientBase, name: string): Promise<Publication | null> {
  const { rows } = await client.query<{
    oid: string
    allTables: boolean
    own: boolean
    kinds: boolean
    root: boolean
    parts: { rel: string; prqual?: unknown; prattrs?: unknown }[]
  }>(
    // The catalog's columns for row filters and column lists are there from Postgres 15 on; as JSON they may be absent.
    `select p.oid::text, p.puballtables as "allTables", coalesce(obj_description(p.oid, 'pg_publication') = $2, false) as own,
            p.pubinsert and p.pubupdate and p.pubdelete and p.pubtruncate as kinds, p.pubviaroot as root,
            coalesce((select json_agg(to_jsonb(r) || jsonb_build_object('rel', r.prrelid::regclass::text)) from pg_publication_rel r where r.prpubid = p.oid), '[]') as parts
       from pg_publication p where p.pubname = $1`,
    [name, COMMENT],
  )
  const row = rows[0]
  if (row === undefined) return null
  const omits: string[] = []
  if (!row.kinds) omits.push('some of insert, update, delete, truncate')
  if (!row.root) omits.push('the root names of partitioned tables')
  for (const part of row.parts) {
    if (part.prqual != null) omits.push(`rows of ${part.rel}`)
    if (part.prattrs != null) omits.push(`columns of ${part.rel}`)
  }
  return { name, oid: Number(row.oid), allTables: row.allTables, own: row.own, omits }
}

/**
 * Tables that the patterns take, as the catalog has them now: ordinary and partitioned ones, a partition only through its root. Unlike
 * `pg_publication_tables` and `pg_partition_tree`, it waits for nobody who has locked one.
 */
export async function listTables(client: pg.ClientBase, publication: string, patterns: TablePatterns): Promise<readonly SourceTable[]> {
  // publications of schemas are there from Postgres 15 on
  const { rowCount } = await client.query(`select where to_regclass('pg_catalog.pg_publication_namespace') is not null`)
  const bySchema = rowCount === 0 ? '' : ' or exists (select from pg_publication_namespace s where s.pnpubid = p.oid and s.pnnspid = c.relnamespace)'
  const { rows } = await client.query<{
    oid: string
    namespace: string
    name: string
    published: boolean
    identified: boolean
    fullRows: boolean
    fingerprint: string
    partitions: Partition[] | null
  }>(
    `select c.oid::text, n.nspname as namespace, c.relname as name,
            exists (select from pg_publication p where p.pubname = $1 and (p.pubviaroot or c.relkind = 'r')
                      and (p.puballtables or exists (select from pg_publication_rel r where r.prpubid = p.oid and r.prrelid = c.oid)${bySchema})) as published,
            not exists (select from (select c.oid as relid where c.relkind = 'r' union all select relid from (${partitionTree('c.oid')}) as t where c.relkind = 'p') as m
                          join pg_class l on l.oid = m.relid and l.relkind <> 'p'
                         where not (l.relreplident = 'f' or exists (select from pg_index i where i.indrelid = l.oid and i.indisvalid and i.indimmediate
                                      and (l.relreplident = 'd' and i.indisprimary or l.relreplident = 'i' and i.indisreplident)))) as identified,
            c.relreplident = 'f' as "fullRows",
            md5(c.relreplident::text || c.relname::text || n.nspname::text
              || coalesce((select string_agg(a.attnum || ':' || a.attname::text || ':' || a.atttypid::text || ':' || a.atttypmod || ':' || a.attnotnull::text || ':' || a.attstorage::text, ',' order by a.attnum)
                   from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '')
              || coalesce((select string_agg(i.indexrelid::text || ':' || i.indkey::text || ':' || i.indisprimary::text || ':' || i.indisreplident::text, ',' order by i.indexrelid)
                   from pg_index i where i.indrelid = c.oid and i.indisunique), '')) as fingerprint,
            ${PARTITIONS} as partitions
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.relkind in ('r', 'p') and not c.relispartition and c.relpersistence = 'p'
        and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
      order by n.nspname, c.relname`,
    [publication],
  )
  return rows.filter((row) => patterns.matches(row.namespace, row.name)).map((row) => ({ ...row, oid: Number(row.oid) }))
}

/** Creates the publication for exactly the tables that the patterns take now. */
export async function createPublication(client: pg.ClientBase, name: string, tables: readonly SourceTable[]): Promise<void> {
  const list = tables.map(tableName).join(', ')
  await client.query('begin')
  try {
    await client.query(`create publication ${quoteName(name)} ${list === '' ? '' : `for table ${list} `}with (publish_via_partition_root = true)`)
    await client.query(`comment on publication ${quoteName(name)} is '${COMMENT}'`)
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}

/**
 * From these versions on a transaction that wrote to a table before it was published has in the stream what it writes to it afterwards. Before, the walsender
 * went on leaving that out, and what others wrote as well. By server_version_num.
 */
const FOLLOWS_WRITERS = [140_018, 150_013, 160_009, 170_005, 180_000]

function followsWriters(version: number): boolean {
  const first = FOLLOWS_WRITERS.find((one) => Math.trunc(one / 10_000) === Math.trunc(version / 10_000))
  return first === undefined || version >= first
}

/**
 * Adds a table, beside its writers. What transactions wrote to it before need not be in the stream: `PostgresSnapshotReader.isReady` waits until they have ended.
 * A server too old for that is made to wait for them here, and writers with it.
 * @param version server_version_num
 * @returns false when the table is locked: try again later
 */
export async function addTable(client: pg.ClientBase, publication: string, table: SourceTable, version: number): Promise<boolean> {
  await client.query('begin')
  try {
    await client.query(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`)
    if (!followsWriters(version)) await client.query(`lock table ${tableName(table)} in share row exclusive mode`)
    await client.query(`alter publication ${quoteName(publication)} add table ${tableName(table)}`)
    await client.query('commit')
    return true
  } catch (error) {
    await client.query('rollback')
    if (isBusy(error)) return false
    if ((error as { readonly code?: unknown }).code === '42501') {
      throw new MillraceError('source.forbidden', `${table.namespace}.${table.name} cannot join the publication ${publication}: its owner must do it`, {
        fix: `ALTER PUBLICATION ${quoteName(publication)} ADD TABLE ${tableName(table)}`,
        cause: error,
      })
    }
    throw error
  }
}

/**
 * Makes a walsender of Postgres 14 decide anew which tables it publishes. The locks wait for transactions that wrote to the tables before: what it left out or
 * published wrongly until then is visible to every later view.
 * @returns false when writers kept one busy: try again later
 */
export async function lookAgain(client: pg.ClientBase, publication: string, tables: readonly number[]): Promise<boolean> {
  await client.query('begin')
  try {
    await client.query(`set local lock_timeout = ${LOCK_TIMEOUT_MS}`)
    const { rows } = await client.query<{ name: string }>(`select oid::regclass::text as name from pg_class where oid = any($1::oid[]) and relkind = 'r'`, [
      tables,
    ])
    if (rows.length > 0) await client.query(`lock table ${rows.map(({ name }) => `only ${name}`).join(', ')} in share row exclusive mode`)
    await client.query(`alter publication ${quoteName(publication)} set (publish_via_partition_root = true)`)
    await client.query('commit')
    return true
  } catch (error) {
    await client.query('rollback')
    if (isBusy(error)) return false
    throw error
  }
}

/** Lock timeout, deadlock, or a table is gone or was added in the meantime: the next look at the catalog decides. */
function isBusy(error: unknown): boolean {
  return ['55P03', '40P01', '42P01', '42710'].includes(String((error as { readonly code?: unknown }).code))
}

/** How a publication is made whole again. */
export function wholeFix(name: string): string {
  const options = `ALTER PUBLICATION ${quoteName(name)} SET (publish = 'insert, update, delete, truncate', publish_via_partition_root = true)`
  return `${options}; and set its tables without WHERE and without a column list`
}

export async function dropPublication(client: pg.ClientBase, name: string): Promise<void> {
  const publication = await findPublication(client, name)
  if (publication?.own) await client.query(`drop publication if exists ${quoteName(name)}`)
}

export function tableName(table: Pick<SourceTable, 'namespace' | 'name'>): string {
  return `${quoteName(table.namespace)}.${quoteName(table.name)}`
}
