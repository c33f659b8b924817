import { MillraceError } from '../../errors.ts'
import { readFrameHeader } from '../../event/record-batch.ts'
import type { LogBatch, LogPosition } from '../log.ts'
import { asLogError, corrupt } from './file-io.ts'
import { ENTRY_BYTES, type FrameEntry, nextOffsetOf, readEntry } from './frame-entry.ts'
import type { PartitionState } from './log-state.ts'
import type { Segment } from './segment.ts'
import type { SegmentList, Waiter } from './segment-list.ts'

const CHUNK_BYTES = 256 * 1024
/** Other partitions' bytes between two frames that are read along rather than skipped. */
const GAP_BYTES = 16 * 1024
const WINDOW = 512
/** A buffer up to this size is kept by a reader that waits. */
const KEPT_BYTES = 16 * 1024

interface Cursor {
  readonly state: PartitionState
  readonly topic: string
  offset: bigint
  /** `tombstonesGoneTo` as it was when the place was last known to miss no delete. */
  goneTo: bigint
  /** Held while set. */
  segment: Segment | null
  index: number
  window: Buffer
  windowFrom: number
}

/**
 * Committed frames from the given positions on, each with its checksum verified; partitions take turns by chunks of 256 KB. Reads ahead one chunk
 * at most. Ends when `signal` aborts or the log closes.
 * @throws log.position_lost, log.corrupt, log.unreachable (no such topic yet)
 */
export async function* readFrames(list: SegmentList, from: readonly LogPosition[], signal: AbortSignal): AsyncGenerator<LogBatch, void, void> {
  if (signal.aborted || list.closed) return
  const cursors = new Map<number, Cursor>()
  for (const { topic, partition, offset } of from) {
    const state = list.current.partitionOf(topic, partition)
    checkPosition(state, topic, offset, true)
    cursors.set(state.key, { state, topic, offset, goneTo: state.tombstonesGoneTo, segment: null, index: 0, window: Buffer.alloc(0), windowFrom: 0 })
  }
  const keys = [...cursors.keys()]
  const ready = new Set(keys)
  let wake: (() => void) | null = null
  let failure: Error | null = null
  let ended = false
  const waiter: Waiter = {
    grown(key) {
      ready.add(key)
      wake?.()
    },
    ended(error) {
      failure = error
      ended = true
      wake?.()
    },
  }
  const onAbort = () => waiter.ended(null)
  signal.addEventListener('abort', onAbort)
  list.wait(keys, waiter)
  let chunk = Buffer.alloc(0)
  try {
    while (!ended) {
      const [key] = ready
      if (key === undefined) {
        if (chunk.length > KEPT_BYTES) chunk = Buffer.alloc(0)
        await new Promise<void>((resolve) => {
          wake = resolve
          if (ended || ready.size > 0) resolve()
        })
        wake = null
        continue
      }
      ready.delete(key)
      const cursor = cursors.get(key)!
      const entries = await nextEntries(list, cursor)
      if (entries.length === 0) continue
      // whatever comes meanwhile, this partition is looked at again, after the others
      ready.add(key)
      const segment = cursor.segment!
      const begin = entries[0]!.at
      const bytes = entries.at(-1)!.at + entries.at(-1)!.sizeBytes - begin
      if (chunk.length < bytes) chunk = Buffer.allocUnsafeSlow(Math.max(bytes, KEPT_BYTES))
      await segment.read(chunk.subarray(0, bytes), begin)
      for (const entry of entries) {
        if (ended) break
        const frame = chunk.subarray(entry.at - begin, entry.at - begin + entry.sizeBytes)
        checkFrame(frame, entry, segment)
        const nextOffset = nextOffsetOf(entry)
        cursor.offset = nextOffset
        cursor.index++
        const { topic, state } = cursor
        yield { topic, partition: state.partition, frame, baseOffset: entry.baseOffset, nextOffset, count: entry.count, appendedAt: entry.appendedAt }
      }
    }
    if (failure !== null) throw failure
  } catch (error) {
    throw asLogError(error, 'reading', list.dir)
  } finally {
    signal.removeEventListener('abort', onAbort)
    list.unwait(keys, waiter)
    for (const cursor of cursors.values()) if (cursor.segment !== null) await cursor.segment.release()
  }
}

/** @param missed whether tombstones may have gone that a reader at this place, past the start, has not read */
function checkPosition(state: PartitionState, topic: string, offset: bigint, missed: boolean): void {
  const at = `position ${offset} of ${topic}/${state.partition}`
  const fix = `Read the stream ${topic} again from its start, or take a new snapshot of its table.`
  if (offset < state.start) throw new MillraceError('log.position_lost', `${at} has expired: the log starts at ${state.start}`, { fix })
  if (offset > state.end)
    throw new MillraceError('log.position_lost', `${at} is after the end of the log, ${state.end}: the log is not the one it comes from`, { fix })
  if (missed && offset > state.start && offset < state.tombstonesGoneTo) {
    throw new MillraceError('log.position_lost', `${at} is older than tombstones that compaction has removed: deletes may be missed`, { fix })
  }
}

/** Frames that one read can fetch, moving the cursor's segment on when it is read to its end; empty at the end of the log. */
async function nextEntries(list: SegmentList, cursor: Cursor): Promise<FrameEntry[]> {
  const { key } = cursor.state
  for (;;) {
    if (cursor.segment === null && !(await locate(list, cursor))) return []
    const segment = cursor.segment!
    const count = segment.range(key)!.count
    if (cursor.index >= count) {
      if (segment === list.active) return []
      cursor.segment = null
      await segment.release()
      continue
    }
    const available = cursor.windowFrom + cursor.window.length / ENTRY_BYTES
    if (cursor.index < cursor.windowFrom || cursor.index >= available) {
      cursor.window = await segment.entries(key, cursor.index, Math.min(count, cursor.index + WINDOW))
      cursor.windowFrom = cursor.index
    }
    return chunkOf(cursor)
  }
}

function chunkOf(cursor: Cursor): FrameEntry[] {
  const entries: FrameEntry[] = []
  let begin = 0
  let end = 0
  const to = cursor.window.length / ENTRY_BYTES
  for (let i = cursor.index - cursor.windowFrom; i < to; i++) {
    const entry = readEntry(cursor.window, i)
    if (entries.length === 0) begin = entry.at
    else if (entry.at - end > GAP_BYTES || entry.at < end || entry.at + entry.sizeBytes - begin > CHUNK_BYTES) break
    entries.push(entry)
    end = entry.at + entry.sizeBytes
  }
  return entries
}

/** Finds and holds the segment of the cursor's offset; false at the end of the log. */
async function locate(list: SegmentList, cursor: Cursor): Promise<boolean> {
  const { state, topic } = cursor
  for (let tries = 0; ; tries++) {
    // I3: one that has read the row may have been passed by the removal of its tombstone
    checkPosition(state, topic, cursor.offset, state.tombstonesGoneTo > cursor.goneTo)
    cursor.goneTo = state.tombstonesGoneTo
    const segment = list.find(state.key, cursor.offset)
    if (segment === undefined) {
      if (cursor.offset < state.end && state.end > state.compactedTo) throw missing(list, cursor, state.end)
      cursor.offset = state.end
      return false
    }
    if (!(await segment.acquire())) {
      await list.refresh?.()
      if (tries === 100 || (list.refresh === null && list.segments.includes(segment))) throw corrupt(segment.path, 0, 'this segment is missing')
      continue
    }
    const index = await segment.find(state.key, cursor.offset)
    cursor.segment = segment
    cursor.index = index
    cursor.window = await segment.entries(state.key, index, Math.min(segment.range(state.key)!.count, index + WINDOW))
    cursor.windowFrom = index
    const { baseOffset } = readEntry(cursor.window, 0)
    if (baseOffset > cursor.offset && baseOffset > state.compactedTo) throw missing(list, cursor, baseOffset)
    return true
  }
}

function missing(list: SegmentList, cursor: Cursor, to: bigint): MillraceError {
  return corrupt(list.dir, 0, `offsets ${cursor.offset} to ${to} of ${cursor.topic}/${cursor.state.partition} are in no segment`)
}

/** @throws log.corrupt unless `frame` is the one that `entry` means, with a valid checksum */
export function checkFrame(frame: Buffer, entry: FrameEntry, segment: Segment): void {
  try {
    const { baseOffset, count, lastOffsetDelta } = readFrameHeader(frame)
    if (baseOffset === entry.baseOffset && count === entry.count && lastOffsetDelta + 1 === entry.offsets) return
  } catch (error) {
    throw corrupt(segment.path, entry.at, error instanceof Error ? error.message : String(error))
  }
  throw corrupt(segment.path, entry.at, `the frame of offset ${entry.baseOffset} is not there`)
}
