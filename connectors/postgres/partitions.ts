/** A member of a partitioned table's tree, below its root. */
export interface Partition {
  readonly oid: number
  readonly name: string
  /** It has rows itself. */
  readonly leaf: boolean
  /** Changes when the partition is truncated or written anew, and when it leaves its parent and comes back. */
  readonly state: string
}

/** What is kept of a partition to tell that it moved. */
export type KnownPartition = Pick<Partition, 'oid' | 'name' | 'state'>

/**
 * A query for the oids (`relid`) of a table and of its partitions on every level, by an expression for the table's oid. `pg_partition_tree` says the same, and
 * waits for whoever has locked one of them.
 */
export const partitionTree = (table: string) => `with recursive tree as (
    select ${table} as relid
    union all
    select i.inhrelid from tree join pg_catalog.pg_inherits i on i.inhparent = tree.relid join pg_catalog.pg_class child on child.oid = i.inhrelid
     where child.relispartition and not i.inhdetachpending)
  select relid from tree`

/**
 * The partitions of pg_class `c` as JSON; null when `c` is not partitioned. A table that became a partition cannot be told from one that was made as such in
 * the same transaction, so nothing says which it was.
 */
export const PARTITIONS = `case when c.relkind = 'p' then (
  select coalesce(json_agg(json_build_object('oid', p.oid::int8, 'name', p.relname, 'leaf', p.relkind = 'r',
           'state', concat(pg_relation_filenode(p.oid), '/', i.xmin)) order by p.oid), '[]')
    from (${partitionTree('c.oid')}) l join pg_class p on p.oid = l.relid join pg_inherits i on i.inhrelid = p.oid) end`

export interface MovedPartition {
  readonly oid: number
  /** In words. */
  readonly what: string
}

export interface MovedPartitions {
  /** Leaves that are new: rows may have come with them. */
  readonly came: readonly MovedPartition[]
  /** Rows may be gone with them. */
  readonly left: readonly MovedPartition[]
}

/** What happened to partitions on their own: the stream of the root has no change for it. */
export function movedPartitions(before: readonly KnownPartition[], now: readonly Partition[]): MovedPartitions {
  const present = new Map(now.map((partition) => [partition.oid, partition]))
  const known = new Set(before.map(({ oid }) => oid))
  const left: MovedPartition[] = []
  for (const { oid, name, state } of before) {
    const partition = present.get(oid)
    if (partition === undefined) left.push({ oid, what: `${name} was detached or dropped` })
    else if (partition.state !== state) left.push({ oid, what: `${name} was truncated, rewritten or attached again` })
  }
  const came = now.filter(({ oid, leaf }) => leaf && !known.has(oid)).map(({ oid, name }) => ({ oid, what: `${name} was attached or made` }))
  return { came, left }
}
