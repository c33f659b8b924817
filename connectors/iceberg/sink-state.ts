/** What Millrace keeps in snapshot summaries and table properties, as text. */
import type { LogPosition } from '../../core/plugin.ts'
import type { OpenTruncation } from './pending-rows.ts'

/** The topic that the table follows. */
export const STREAM_PROPERTY = 'millrace.stream'
/** All positions, complete each time: `[{"topic","partition","offset":"text"}]`. */
export const POSITIONS_PROPERTY = 'millrace.positions'
/** `{"commit":"text","ordinal","seen"}` or `null`. */
const TRUNCATION_PROPERTY = 'millrace.truncation'

export function formatState(positions: readonly LogPosition[], truncation: OpenTruncation | null): Readonly<Record<string, string>> {
  return {
    [POSITIONS_PROPERTY]: JSON.stringify(positions.map(({ topic, partition, offset }) => ({ topic, partition, offset: String(offset) }))),
    [TRUNCATION_PROPERTY]: JSON.stringify(
      truncation === null ? null : { commit: String(truncation.position.commit), ordinal: truncation.position.ordinal, seen: truncation.seen },
    ),
  }
}

export function parsePositions(state: Readonly<Record<string, string>>): readonly LogPosition[] {
  const positions = JSON.parse(state[POSITIONS_PROPERTY] ?? '[]') as readonly { topic: string; partition: number; offset: string }[]
  return positions.map(({ topic, partition, offset }) => ({ topic, partition, offset: BigInt(offset) }))
}

export function parseTruncation(state: Readonly<Record<string, string>>): OpenTruncation | null {
  const truncation = JSON.parse(state[TRUNCATION_PROPERTY] ?? 'null') as { commit: string; ordinal: number; seen: number } | null
  return truncation === null ? null : { position: { commit: BigInt(truncation.commit), ordinal: truncation.ordinal }, seen: truncation.seen }
}
