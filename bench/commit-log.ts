/** How fast segments of Cassandra's commit log are decoded: inserts of eight columns, in this process, without a log or a server beside it. */
import { MutationDecoder, partitionKey } from '../connectors/cassandra/mutation-decoder.ts'
import { SegmentReader } from '../connectors/cassandra/segment-reader.ts'
import { mapTable } from '../connectors/cassandra/type-mapping.ts'
import { TupleWriter } from '../core/event/tuple-writer.ts'
import { type Recording, recordCommitLog } from '../test/services/commit-log/commit-log.ts'
import { describeTables, indexOf } from '../test/services/commit-log/expected.ts'
import type { CaseOptions } from './cases.ts'
import { round } from './drain.ts'
import { peakRssMb } from './process-usage.ts'

const COMPRESSIONS: readonly { readonly name: string; readonly yaml: readonly string[] }[] = [
  { name: 'uncompressed', yaml: [] },
  { name: 'LZ4', yaml: ['commitlog_compression: [{class_name: LZ4Compressor}]'] },
]
const STATEMENTS = (rows: number) => [
  "CREATE KEYSPACE bench WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
  `CREATE TABLE bench.orders (customer bigint, id int, status text, price decimal, weight double, placed timestamp, note text, ref uuid, PRIMARY KEY (customer, id))
    WITH cdc = true`.replaceAll('\n', ' '),
  '---',
  `${rows} x INSERT INTO bench.orders (customer, id, status, price, weight, placed, note, ref) VALUES (%d, 7, 'in transit', 1234.56, 0.5, '2026-01-02T03:04:05.678Z',
    'a note that is as long as notes are, number %d', 6ba7b810-9dad-11d1-80b4-00c04fd430c8)`.replaceAll(/\n\s*/g, ' '),
]

const recordings = new Map<string, Promise<Recording>>()

export async function commitLog({ lab, rows, report }: CaseOptions): Promise<void> {
  for (const { name, yaml } of COMPRESSIONS) {
    let recorded = recordings.get(name)
    if (recorded === undefined) {
      const dir = lab.folder(`commit-log-${name}`)
      recorded = recordCommitLog({
        dir,
        release: '5.0',
        yaml: ['commitlog_segment_size: 32MiB', 'cdc_total_space: 8GiB', ...yaml],
        statements: STATEMENTS(rows),
        reread: false,
      })
      recordings.set(name, recorded)
    }
    const recording = await recorded
    for (const withValues of [false, true]) {
      const startCpu = process.cpuUsage()
      const startedAt = performance.now()
      const updates = await decodeAll(recording, withValues)
      const seconds = (performance.now() - startedAt) / 1000
      const { user, system } = process.cpuUsage(startCpu)
      const cpuPerMillion = round((user + system) / updates)
      report({
        label: `commit-log ${name}, ${withValues ? 'values read' : 'decoded'}`,
        rows: updates,
        rowsPerSecond: Math.round(updates / seconds),
        firstRecordS: null,
        cpuPerMillion,
        cpuFromLaunchPerMillion: cpuPerMillion,
        walsenderCpuPerMillion: null,
        brokerCpuPerMillion: null,
        peakRssMb: peakRssMb(process.pid),
      })
    }
  }
}

/** @returns how many updates there were */
async function decodeAll({ schema, segments }: Recording, withValues: boolean): Promise<number> {
  const tables = describeTables(schema, (keyspace) => keyspace === 'bench')
  const decoder = new MutationDecoder(tables)
  const mapped = mapTable(tables.find(({ captured }) => captured)!, { unrepresentable: 'text', partial: true })
  const writer = new TupleWriter(mapped.table)
  let count = 0
  for (const { file, index } of segments) {
    await using reader = await SegmentReader.open(file)
    for (let block = await reader.read(indexOf(index)); block !== null; block = await reader.read(indexOf(index))) {
      for (let i = 0; i < block.starts.length; i++) {
        const { updates } = decoder.decode(block.bytes, block.starts[i]!, block.ends[i]!, file, block.positions[i]!)
        count += updates.length
        if (!withValues) continue
        for (const update of updates) {
          const key = partitionKey(update)
          for (const row of update.rows) {
            writer.start()
            let cell = 0
            for (const { index: column, reader: value } of mapped.columns) {
              const { kind, position } = update.table.columns[column]!
              const slice = kind === 'partition_key' ? key[position]! : kind === 'clustering' ? row.clustering[position]! : row.cells[cell++]!
              value.write(update.bytes, slice.from, slice.to, writer)
            }
          }
        }
      }
    }
  }
  return count
}
