import type { Json } from '../event/offset.ts'
import { SNAPSHOT_ENTRY } from '../event/snapshot-progress.ts'

/** Progress entry with what is added to every commit of the source, as a decimal: positions rise on when the source starts over. */
export const COMMIT_BASE_ENTRY = 'commitBase'

/** Prefix of the progress entries with the shape of a table's rows in the log; followed by the table's id. */
export const SHAPE_ENTRY = 'shape/'

/**
 * Progress that makes a source start as new, on whatever server there is now, into the topics that exist: each table is emptied by a truncation before
 * its rows are read again, since what was deleted meanwhile is in no stream. Positions go on after the last one written, and so do the ledgers.
 * Append it in one batch.
 */
export function startOver(progress: ReadonlyMap<string, Json>): Map<string, Json | null> {
  const position = progress.get('position') as { commit: string } | undefined
  const entries = new Map<string, Json | null>([
    ['offset', null],
    ['position', null],
  ])
  if (position !== undefined) entries.set(COMMIT_BASE_ENTRY, (BigInt(position.commit) + 1n).toString())
  for (const key of progress.keys()) {
    if (key.startsWith(SHAPE_ENTRY)) entries.set(key, null)
    if (key.startsWith(SNAPSHOT_ENTRY)) entries.set(key, { done: false, next: null, rows: 0, clear: true })
  }
  return entries
}

/** What is added to the source's commits in the positions of this progress. */
export function commitBase(progress: ReadonlyMap<string, Json>): bigint {
  return BigInt((progress.get(COMMIT_BASE_ENTRY) as string | undefined) ?? 0)
}
