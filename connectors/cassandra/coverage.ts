import type { CqlClient } from './cql-client.ts'

/** A keyspace of which some partitions may have no replica on any node whose log is read. */
export interface Uncovered {
  readonly keyspace: string
  readonly message: string
}

/** @param folders how many nodes' logs are read; each has every partition of a keyspace whose copies are more than the nodes that are left out */
export async function uncovered(client: CqlClient, keyspaces: ReadonlySet<string>, folders: number): Promise<readonly Uncovered[]> {
  const rows = await client.rows('to look at the keyspaces', 'SELECT keyspace_name, replication FROM system_schema.keyspaces')
  return rows.flatMap((row) => {
    const keyspace = String(row.keyspace_name)
    if (!keyspaces.has(keyspace)) return []
    const replication = row.replication as ReadonlyMap<string, string>
    const ofRing = replication.get('replication_factor')
    const copies = Number.parseInt(ofRing ?? replication.get(client.localDataCenter) ?? '0', 10)
    const nodes = client.countNodes(ofRing === undefined)
    if (copies + folders > nodes) return []
    return [
      {
        keyspace,
        message: `${keyspace} has ${copies} copies on ${nodes} nodes, and the logs of ${folders} are read: changes of some partitions are in none of them`,
      },
    ]
  })
}

export const COVER = 'name the folders of more nodes in cdcRaw, through agents where they are on other machines'
