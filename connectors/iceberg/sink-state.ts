/** What Millrace keeps in snapshot summaries and table properties, as text. */
import type { LogPosition } from '../../core/plugin.ts'

/** The topic that the table follows. */
export const STREAM_PROPERTY = 'millrace.stream'
/** All positions, complete each time: `[{"topic","partition","offset":"text"}]`. */
const POSITIONS_PROPERTY = 'millrace.positions'
/** What the driver gave with the last batch: a table property only, since a copy in every snapshot would swell the metadata. */
export const MEMO_PROPERTY = 'millrace.memo'

export function formatState(positions: Iterable<LogPosition>): Readonly<Record<string, string>> {
  return { [POSITIONS_PROPERTY]: JSON.stringify(Array.from(positions, ({ topic, partition, offset }) => ({ topic, partition, offset: String(offset) }))) }
}

export function parsePositions(state: Readonly<Record<string, string>>): readonly LogPosition[] {
  const positions = JSON.parse(state[POSITIONS_PROPERTY] ?? '[]') as readonly { topic: string; partition: number; offset: string }[]
  return positions.map(({ topic, partition, offset }) => ({ topic, partition, offset: BigInt(offset) }))
}
