import { MillraceError } from '../errors.ts'
import { comparePositions, type Position } from '../event/position.ts'
import { type FrameRecord, records } from '../event/record-batch.ts'
import { compileConversion } from '../event/row-conversion.ts'
import { RowChecksum } from '../event/row-hash.ts'
import { type TableSchema, type Tuple, UNCHANGED } from '../event/table-schema.ts'
import type { Log, LogPosition } from '../log/log.ts'
import { AvroWriter } from '../schema/avro-writer.ts'
import { RecordDecoders } from '../schema/record-decoder.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import { compileRowEncoder } from '../schema/value-encoder.ts'

/** Sums the canonical bytes of rows: the Avro `Value` of one version of the table, so that rows of any origin compare. */
export class RowSum {
  readonly checksum = new RowChecksum()
  readonly #encode: (out: AvroWriter, row: Tuple) => void
  readonly #out = new AvroWriter()

  constructor(table: TableSchema) {
    // a value that never came is summed as such, and so makes a difference
    this.#encode = compileRowEncoder(table)
  }

  add(row: Tuple): void {
    this.#out.at = 0
    this.#encode(this.#out, row)
    this.checksum.add(this.#out.view, 0, this.#out.at)
  }
}

/** How much of a topic to replay. */
export interface Cut {
  /** Up to these positions; a partition that is missing is not read. */
  readonly until: readonly LogPosition[]
  /** Only changes whose position's commit is below this. */
  readonly below: bigint | null
}

/**
 * The state of a table as the log tells it: its changes replayed from the start up to a cut, the last version of each row in the shape `table`.
 * Memory holds one row per key: meant for tables of up to a few million small rows.
 * @throws log.position_lost when the topic's start is no longer retained
 */
export async function logState(log: Log, registry: SchemaRegistry, topic: string, table: TableSchema, cut: Cut, signal: AbortSignal): Promise<RowChecksum> {
  const bounds = await log.bounds(topic)
  const left = new Map<number, bigint>()
  for (const { partition, offset } of cut.until) {
    const bound = bounds.find((b) => b.partition === partition)
    if (bound === undefined) throw new MillraceError('invariant.broken', `${topic} has no partition ${partition}`)
    if (bound.start > 0n) {
      throw new MillraceError('log.position_lost', `${topic}/${partition} is retained from offset ${bound.start} only, so its state cannot be replayed`, {
        fix: 'compare source and sinks only, or keep the topic for ever (topics: retention: forever)',
      })
    }
    if (offset > 0n) left.set(partition, offset)
  }
  const rows = new Map<string, { readonly row: Tuple; readonly position: Position }>()
  if (left.size > 0) {
    const decoders = new RecordDecoders(registry)
    const conversions = new Map<TableSchema, (row: Tuple) => Tuple>()
    const stop = new AbortController()
    const from = [...left.keys()].map((partition) => ({ topic, partition, offset: 0n }))
    for await (const batch of log.consume(from, AbortSignal.any([signal, stop.signal]))) {
      const until = left.get(batch.partition)
      if (until === undefined) continue
      await decoders.prepare(batch.frame)
      for (const record of records(batch.frame)) {
        if (record.offset >= until) break
        const change = decodeOrSkip(decoders, batch.frame, record)
        if (change === null || change.kind === 'message') continue
        if (cut.below !== null && change.position.commit >= cut.below) continue
        if (change.kind === 'truncate') {
          // it is in every partition, and partitions are read beside each other: newer rows of another one stay
          for (const [key, { position }] of rows) if (comparePositions(position, change.position) < 0) rows.delete(key)
          continue
        }
        let convert = conversions.get(change.table)
        if (convert === undefined) {
          convert = compileConversion(change.table, table)
          conversions.set(change.table, convert)
        }
        const key = keyText(change.key ?? change.after ?? change.before)
        if (change.after === null) rows.delete(key)
        else {
          const row = convert(change.after)
          const base = row.includes(UNCHANGED) ? rows.get(key)?.row : undefined
          rows.set(key, { row: base === undefined ? row : row.map((value, i) => (value === UNCHANGED ? base[i]! : value)), position: change.position })
        }
      }
      if (batch.nextOffset >= until) left.delete(batch.partition)
      if (left.size === 0) break
    }
    stop.abort()
    if (left.size > 0) throw new MillraceError('log.unreachable', `the replay of ${topic} was stopped before its end`)
  }
  const sum = new RowSum(table)
  for (const { row } of rows.values()) sum.add(row)
  return sum.checksum
}

/** Null for a record that no sink takes up either: it is a dead letter there, and the ledger counts it as foreign. */
function decodeOrSkip(decoders: RecordDecoders, frame: Buffer, record: FrameRecord): ReturnType<RecordDecoders['decode']> {
  try {
    return decoders.decode(frame, record)
  } catch (error) {
    if (error instanceof MillraceError && error.code === 'record.malformed') return null
    throw error
  }
}

function keyText(key: Tuple | null): string {
  return JSON.stringify(key, (_, value: unknown) =>
    typeof value === 'bigint' ? `${value}n` : value instanceof Uint8Array ? Buffer.from(value).toString('hex') : value,
  )
}
