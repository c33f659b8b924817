import { describe, expect, test } from 'vitest'
import { RowLookUps, type WantedRow } from '../../../../connectors/cassandra/row-look-ups.ts'
import type { QueriedRow } from '../../../../connectors/cassandra/row-query.ts'
import type { MappedTable } from '../../../../connectors/cassandra/table-mapping.ts'

/** Of a table only which one it is matters here. */
const shape = (name: string) => ({ id: name }) as MappedTable
const row = (writtenAt: number): QueriedRow => ({ values: [], token: 0n, writtenAt, due: 0 })
const wanted = (mapped: MappedTable, partition: number, clustering: number): WantedRow => ({
  mapped,
  partition: Buffer.of(partition),
  clustering: Buffer.of(clustering >> 8, clustering & 0xff),
})

/** A cluster whose odd rows are there. */
class Cluster {
  readonly selects: { readonly table: string; readonly partition: number; readonly rows: number }[] = []
  readonly broken = new Set<number>()
  atOnce = 0
  most = 0

  query(table: MappedTable) {
    return {
      some: async (partition: Buffer, clusterings: readonly Buffer[]) => {
        this.selects.push({ table: table.id, partition: partition[0]!, rows: clusterings.length })
        this.most = Math.max(this.most, ++this.atOnce)
        await new Promise(setImmediate)
        this.atOnce--
        if (this.broken.has(partition[0]!)) throw new Error(`partition ${partition[0]}`)
        return clusterings.map((one) => (one[1]! % 2 === 1 ? row(one.readUInt16BE()) : null))
      },
    }
  }
}

describe('rows that are looked up', () => {
  test('those of one partition come together, each once, and partitions at the same time', async () => {
    const cluster = new Cluster()
    const rows = new RowLookUps((table) => cluster.query(table))
    const items = shape('items')
    const needed = [wanted(items, 1, 1), wanted(items, 1, 2)]
    const ahead = [...Array.from({ length: 100 }, (_, n) => wanted(items, 1, n)), ...Array.from({ length: 40 }, (_, n) => wanted(items, 2 + n, 1))]
    await rows.read(needed, ahead)
    expect(cluster.selects.slice(0, 2)).toEqual([
      { table: 'items', partition: 1, rows: 64 },
      { table: 'items', partition: 1, rows: 36 },
    ])
    expect(cluster.selects.slice(2).map(({ rows: count }) => count)).toEqual(new Array(40).fill(1))
    expect(cluster.most).toBe(16)
    for (const one of [...needed, ...ahead]) {
      const number = one.clustering.readUInt16BE()
      expect(rows.find(one)).toEqual(number % 2 === 1 ? row(number) : null)
    }
    expect(rows.find(wanted(items, 1, 1000))).toBeUndefined()
    rows.forget()
    expect(rows.find(needed[0]!)).toBeUndefined()
  })

  test('a table that was altered or truncated since has none of them', async () => {
    const cluster = new Cluster()
    const rows = new RowLookUps((table) => cluster.query(table))
    await rows.read([wanted(shape('items'), 1, 1)])
    expect(rows.find(wanted(shape('items'), 1, 1))).toBeUndefined()
  })

  test('a failure counts for rows that are needed, not for those that may be', async () => {
    const cluster = new Cluster()
    cluster.broken.add(2)
    const rows = new RowLookUps((table) => cluster.query(table))
    const items = shape('items')
    await rows.read([wanted(items, 1, 1)], [wanted(items, 2, 1), wanted(items, 3, 1)])
    expect([1, 2, 3].map((partition) => rows.find(wanted(items, partition, 1)))).toEqual([row(1), undefined, row(1)])
    await expect(rows.read([wanted(items, 2, 1)])).rejects.toThrow('partition 2')
  })
})
