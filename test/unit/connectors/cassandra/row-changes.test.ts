import { expect, test } from 'vitest'
import { packValues } from '../../../../connectors/cassandra/clustering-order.ts'
import type { Cell, PartitionUpdate, TableDescription } from '../../../../connectors/cassandra/commit-log-events.ts'
import type { KnownRow, KnownRows } from '../../../../connectors/cassandra/known-rows.ts'
import { RowChanges } from '../../../../connectors/cassandra/row-changes.ts'
import { mapCaptured } from '../../../../connectors/cassandra/table-mapping.ts'

const column = (name: string, kind: 'partition_key' | 'regular') =>
  ({ name, kind, position: kind === 'regular' ? -1 : 0, type: { kind: 'native', name: 'text' }, reversed: false, dropped: false }) as const
const description: TableDescription = {
  id: 't',
  keyspace: 'shop',
  name: 'items',
  captured: true,
  columns: [column('id', 'partition_key'), column('a', 'regular'), column('b', 'regular')],
}
const table = mapCaptured({ description, droppedAt: new Map(), truncatedAt: 0 }, { unrepresentable: 'text' } as never)

/** Of the row k; columns by their index in the description. */
function update(at: number, cells: Readonly<Record<number, string | null>>, isInsert: boolean): PartitionUpdate {
  const bytes = Buffer.from(`k${Object.values(cells).join('')}`)
  let from = 1
  const written = Object.entries(cells).map(([index, value]): Cell => {
    const to = from + (value?.length ?? 0)
    const cell = { column: Number(index), writtenAt: at, ttl: 0, localTime: 0, tombstone: value === null, pathFrom: -1, pathTo: -1, from, to }
    from = to
    return cell
  })
  const liveness = isInsert ? { writtenAt: at, ttl: 0, expiresAt: 0 } : null
  const row = { clustering: [], liveness, deletion: null, cells: written, complexDeletions: [] }
  return { table: description, bytes, from: 0, to: bytes.length, key: { from: 0, to: 1 }, deletion: null, staticRow: null, rows: [row], ranges: [] }
}

function changesOf(known: KnownRow | null, of: PartitionUpdate, again = false) {
  const rows = {
    find: (_: string, partition: Buffer, clustering: Buffer | null) =>
      partition.equals(Buffer.from('k')) && clustering?.equals(packValues([])) ? known : null,
  }
  const options = { known: rows as KnownRows, whole: false, isSettling: () => false, isReading: () => false, tokenOf: () => 0n }
  return new RowChanges(options, 0).of(of, table, again).map((change) => ({
    kind: change.kind,
    ...(change.kind === 'set' ? { op: change.op, values: change.values.slice(1).map((value) => value?.toString() ?? value) } : {}),
  }))
}

// of a chunk that may not have come into the log
const unsure: KnownRow = { writtenAt: 5, alive: true, marked: false, due: 0, unsure: true }

test('a row that the log may lack is read for a change of a part of it, and not for one that says all', () => {
  expect(changesOf(unsure, update(6, { 1: 'x' }, false))).toEqual([{ kind: 'read' }])
  expect(changesOf(unsure, update(6, { 1: 'x', 2: null }, true))).toEqual([{ kind: 'set', op: 'c', values: ['x', null] }])
  expect(changesOf(unsure, update(6, { 1: 'x', 2: 'y' }, false))).toEqual([{ kind: 'set', op: 'u', values: ['x', 'y'] }])
  // the log has the change already
  expect(changesOf(unsure, update(6, { 1: 'x' }, false), true)).toEqual([{ kind: 'set', op: 'u', values: ['x', undefined] }])
  expect(changesOf({ ...unsure, unsure: false }, update(6, { 1: 'x' }, false))).toEqual([{ kind: 'set', op: 'u', values: ['x', undefined] }])
})

test('a row of which something as new was seen is read, whatever the change says', () => {
  for (const isUnsure of [false, true]) expect(changesOf({ ...unsure, unsure: isUnsure }, update(5, { 1: 'x', 2: 'y' }, true))).toEqual([{ kind: 'read' }])
})

test('a column that is set to null in a row that is not there is remembered, so that an older write does not bring it back', () => {
  const gone: KnownRow = { writtenAt: 5, alive: false, marked: false, due: 0 }
  expect(changesOf(gone, update(9, { 1: null }, false))).toEqual([{ kind: 'note' }])
  expect(changesOf({ ...gone, writtenAt: 9 }, update(7, { 1: 'x', 2: 'y' }, false))).toEqual([{ kind: 'read' }])
})
