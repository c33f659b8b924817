/** A member of a partitioned table's tree, below its root. */
export interface Partition {
  readonly oid: number
  readonly name: string
  /** Changes when the partition is truncated or written anew; null when it is partitioned itself. */
  readonly file: number | null
  /** It was a table before it became a partition. */
  readonly attached: boolean
}

/**
 * The partitions of pg_class `c` as JSON; null when `c` is not partitioned. Of a table's catalog rows, only that of its row type is left alone by ATTACH, so
 * the transaction that wrote it tells whether the partition was made as one.
 */
export const PARTITIONS = `case when c.relkind = 'p' then (
  select coalesce(json_agg(json_build_object('oid', p.oid::int8, 'name', p.relname, 'file', pg_relation_filenode(p.oid)::int8, 'attached', t.xmin <> i.xmin) order by p.oid), '[]')
    from pg_partition_tree(c.oid) l join pg_class p on p.oid = l.relid join pg_inherits i on i.inhrelid = p.oid join pg_type t on t.oid = p.reltype) end`

const ATTACHED = ' was attached'

/** What happened to partitions on their own, in words: the stream of the root has no change for it. */
export function movedPartitions(before: readonly Partition[], now: readonly Partition[]): readonly string[] {
  const left = new Map(now.map((partition) => [partition.oid, partition]))
  const known = new Set(before.map(({ oid }) => oid))
  const moved: string[] = []
  for (const { oid, name, file } of before) {
    const partition = left.get(oid)
    if (partition === undefined) moved.push(`${name} was detached or dropped`)
    else if (partition.file !== file) moved.push(`${name} was truncated or rewritten`)
  }
  for (const { oid, name, attached } of now) if (attached && !known.has(oid)) moved.push(`${name}${ATTACHED}`)
  return moved
}

/** Whether this word of `movedPartitions` is about a table that became a partition. */
export function isAttach(moved: string): boolean {
  return moved.endsWith(ATTACHED)
}
