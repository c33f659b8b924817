import type { MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import type { Position } from '../event/position.ts'
import { SNAPSHOT_ENTRY, UNREAD } from '../event/snapshot-progress.ts'
import { PARTS_ENTRY } from './known-parts.ts'
import { PARKED_ENTRY, type ParkedTable, parkedTable } from './parked-tables.ts'

/** Progress entry with what is added to every commit of the source, as a decimal: positions rise on when the source starts over. */
const COMMIT_BASE_ENTRY = 'commitBase'

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
    if (key.startsWith(SNAPSHOT_ENTRY)) entries.set(key, UNREAD)
    if (key.startsWith(PARTS_ENTRY)) entries.set(key, null)
    if (key.startsWith(PARKED_ENTRY) && !isGone(progress.get(key))) entries.set(key, null)
  }
  return entries
}

/**
 * Progress that makes one table be read anew, after a truncation; parked, it goes on. Of a table that is gone it only says that this is known.
 * Null: the source knows no such table.
 */
export function readAnew(progress: ReadonlyMap<string, Json>, table: string): Map<string, Json | null> | null {
  const parked = progress.get(PARKED_ENTRY + table)
  if (isGone(parked)) return new Map([[PARKED_ENTRY + table, { ...(parked as object), accepted: true } as Json]])
  if (parked === undefined && !progress.has(SNAPSHOT_ENTRY + table)) return null
  // nothing of it was captured
  if (!progress.has(SNAPSHOT_ENTRY + table)) return new Map([[PARKED_ENTRY + table, null]])
  return new Map<string, Json | null>([
    [PARKED_ENTRY + table, null],
    [SNAPSHOT_ENTRY + table, UNREAD],
    [PARTS_ENTRY + table, null],
  ])
}

/** Progress that parks a table of `node` whose records the log does not take: what follows the durable position is left out. */
export function setAside(progress: ReadonlyMap<string, Json>, node: string, table: string, error: MillraceError): Map<string, Json | null> {
  return new Map<string, Json | null>([
    [PARKED_ENTRY + table, parkedTable(node, table, error, capturedThrough(progress)) as unknown as Json],
    [SNAPSHOT_ENTRY + table, UNREAD],
  ])
}

function isGone(parked: Json | undefined): boolean {
  return (parked as ParkedTable | undefined)?.code === 'source.table_gone'
}

/** The last position that is in the log as of this progress: everything captured is at or before it, and what will be comes after it. */
export function capturedThrough(progress: ReadonlyMap<string, Json>): Position {
  const position = progress.get('position') as { commit: string; ordinal: number } | undefined
  return position === undefined ? { commit: commitBase(progress), ordinal: 0 } : { commit: BigInt(position.commit), ordinal: position.ordinal }
}

/** What is added to the source's commits in the positions of this progress. */
export function commitBase(progress: ReadonlyMap<string, Json>): bigint {
  return BigInt((progress.get(COMMIT_BASE_ENTRY) as string | undefined) ?? 0)
}
