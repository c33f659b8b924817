import { MillraceError } from '../errors.ts'
import type { Log, LogPosition } from '../log/log.ts'
import { STOPPED } from '../retry.ts'
import type { RecordDecoders } from '../schema/record-decoder.ts'
import { LANDED_WINDOWS, LandedWindows, samePositions } from './landed-windows.ts'
import type { SinkConnector } from './sink-connector.ts'
import { countStream } from './stream-count.ts'

export interface RecallOptions {
  readonly sink: SinkConnector
  readonly topic: string
  /** What the target holds of the stream now. */
  readonly positions: readonly LogPosition[]
  readonly log: Log
  readonly decoders: RecordDecoders
  readonly signal: AbortSignal
}

/**
 * The windows that a target kept with these positions; null when it kept none, or others.
 * @throws log.position_lost when it was filled from another log than `log`: its positions mean nothing here
 */
export async function keptWindows(
  sink: SinkConnector,
  topic: string,
  positions: readonly LogPosition[],
  log: Pick<Log, 'identity'>,
): Promise<LandedWindows | null> {
  const memo = (await sink.recall?.()) ?? null
  const kept = memo === null ? null : LandedWindows.parse(topic, memo)
  const isOther = kept !== null && kept.log !== null && log.identity !== null && kept.log !== log.identity
  // I3: read on from them, and what this log has before them would never land
  if (isOther && positions.some(({ offset }) => offset > 0n))
    throw foreignLog(`the target of ${topic} was filled from the log ${kept.log}, not ${log.identity}`)
  if (kept !== null && samePositions(kept.positions, positions)) return kept.windows
  return positions.every(({ offset }) => offset === 0n) ? new LandedWindows() : null
}

/**
 * The windows that a target kept with its positions. One that kept none, or whose memo is of other positions since something else rolled it back, is counted
 * once from the log. Null: the target cannot keep a memo, or the log no longer has its start.
 */
export async function recallWindows({ sink, topic, positions, log, decoders, signal }: RecallOptions): Promise<LandedWindows | null> {
  if (sink.recall === undefined) return null
  const kept = await keptWindows(sink, topic, positions, log)
  if (kept !== null) return kept
  try {
    return LandedWindows.counted((await countStream(log, decoders, positions, LANDED_WINDOWS, signal)).ledger)
  } catch (error) {
    if (signal.aborted) throw STOPPED
    if (error instanceof MillraceError && error.code === 'log.position_lost') return null
    throw error
  }
}

/** @param how it is known, for people */
export function foreignLog(how: string): MillraceError {
  return new MillraceError('log.position_lost', `${how}: it is another log`, {
    fix: 'give the sink the log that it was made from, or a new target that is made from this log',
  })
}
