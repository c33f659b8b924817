import { MillraceError } from '../errors.ts'
import { comparePositions, type Position } from '../event/position.ts'
import { records } from '../event/record-batch.ts'
import { viewOf } from '../event/view-of.ts'
import { WindowLedger, windowOf } from '../event/window-ledger.ts'
import type { Log, LogPosition } from '../log/log.ts'
import type { RecordDecoders } from '../schema/record-decoder.ts'

export interface StreamCount {
  readonly ledger: WindowLedger
  /** Records that are no change of the stream: nobody's capture wrote them. Tombstones do not count. */
  readonly foreign: number
  /** Changes after `through`, which the ledger does not count, and the greatest of their positions; null: there are none. */
  readonly beyond: { readonly records: number; readonly last: Position } | null
}

/**
 * Counts what a stream holds from its start up to `until`, by window. Rows are not decoded, only passed over.
 * @param through the last position in the source's log that counts; null: all do
 * @throws log.position_lost when the start is no longer retained; log.unreachable when it was stopped
 */
export async function countStream(
  log: Log,
  decoders: RecordDecoders,
  until: readonly LogPosition[],
  windows: number,
  signal: AbortSignal,
  through: Position | null = null,
): Promise<StreamCount> {
  const ledger = new WindowLedger(windows)
  let foreign = 0
  let beyond: { records: number; last: Position } | null = null
  const left = new Map(until.filter(({ offset }) => offset > 0n).map(({ partition, offset }) => [partition, offset]))
  const stop = new AbortController()
  const from = until.filter(({ partition }) => left.has(partition)).map((position) => ({ ...position, offset: 0n }))
  const batches = from.length === 0 ? [] : log.consume(from, AbortSignal.any([signal, stop.signal]))
  for await (const { frame, partition, nextOffset } of batches) {
    const end = left.get(partition)
    if (end === undefined) continue
    await decoders.prepare(frame)
    const view = viewOf(frame)
    for (const record of records(frame)) {
      if (record.offset >= end) break
      const facts = decoders.glance(frame, record)
      if (facts === 'malformed' || facts?.op === 'm') foreign++
      else if (facts !== null && through !== null && comparePositions(facts.position, through) > 0) {
        beyond ??= { records: 0, last: facts.position }
        beyond.records++
        if (comparePositions(facts.position, beyond.last) > 0) beyond.last = facts.position
      } else if (facts !== null) ledger.tally(windowOf(facts.committedAt)).addRecord(facts.op, view, record)
    }
    if (nextOffset >= end) left.delete(partition)
    if (left.size === 0) break
  }
  stop.abort()
  if (left.size > 0) throw new MillraceError('log.unreachable', `the counting of ${until[0]!.topic} was stopped before its end`)
  return { ledger, foreign, beyond }
}
