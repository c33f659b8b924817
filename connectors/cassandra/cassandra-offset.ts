import { foreignOffset, type Json, type SourceOffset } from '../../core/plugin.ts'

/** Where a node's log was read up to. */
export interface LogPlace {
  /** Id of the segment. */
  readonly segment: number
  readonly position: number
}

/** What {@link SourceOffset} is for Cassandra. */
export interface CassandraOffset {
  /** By folder. */
  readonly logs: Readonly<Record<string, LogPlace>>
  /** Of the last change: microseconds of its write time, or one more than the one before where that is not later. */
  readonly commit: bigint
  /** Whatever was written before (microseconds) has been streamed. */
  readonly through: number
}

/** @throws source.identity_changed when this source did not write it */
export function readOffset(offset: SourceOffset | Json): CassandraOffset {
  const { logs, commit, through } = offset as { logs?: unknown; commit?: unknown; through?: unknown }
  if (typeof logs !== 'object' || logs === null || typeof commit !== 'string' || typeof through !== 'number') throw foreignOffset('Cassandra')
  return { logs: logs as Record<string, LogPlace>, commit: BigInt(commit), through }
}

export function writeOffset({ logs, commit, through }: CassandraOffset): SourceOffset {
  return { logs: logs as unknown as Json, commit: commit.toString(), through }
}

/** Negative: `a` is before `b` in the log of a node. */
export function comparePlaces(a: LogPlace, b: LogPlace): number {
  return a.segment - b.segment || a.position - b.position
}

/** Some log is before where it is in the other. */
export function isBehind(a: CassandraOffset, b: CassandraOffset): boolean {
  return Object.entries(b.logs).some(([folder, place]) => a.logs[folder] === undefined || comparePlaces(a.logs[folder], place) < 0)
}
