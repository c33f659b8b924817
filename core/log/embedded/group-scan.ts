import { decodeGroupHead, GROUP_HEAD_BYTES, GROUP_MAGIC, type GroupHead, groupHeadBytes, isPlacedFrame } from './commit-group.ts'
import { readInto } from './file-io.ts'
import { partitionKey } from './log-state.ts'
import type { Segment } from './segment.ts'
import type { SegmentList } from './segment-list.ts'

const WINDOW_BYTES = 256 * 1024

/** Makes a durable group that lies at byte `at` of the active segment visible: entries, state, and those who wait. */
export function applyGroup(list: SegmentList, segment: Segment, head: GroupHead, at: number): void {
  if (head.facts !== null) list.state.apply(head.facts)
  let frameAt = at + head.headBytes
  for (const { topicId, partition, baseOffset, sizeBytes, count, offsets } of head.frames) {
    const key = partitionKey(topicId, partition)
    segment.add(key, { baseOffset, appendedAt: head.appendedAt, at: frameAt, sizeBytes, count, offsets })
    list.state.partition(key)!.end = baseOffset + BigInt(offsets)
    frameAt += sizeBytes
  }
  segment.sizeBytes = frameAt
  list.sequence = head.sequence
  for (const { topicId, partition } of head.frames) list.grown(partitionKey(topicId, partition))
}

/**
 * Applies the valid groups in bytes [from, to) of the active segment's file; those that end after `verifyFrom` only when the checksums of their
 * frames hold.
 * @returns the end of the last valid group
 */
export async function scanGroups(list: SegmentList, segment: Segment, fd: number, from: number, to: number, verifyFrom: number): Promise<number> {
  let at = from
  let window = Buffer.alloc(0)
  let windowAt = from
  /** Bytes [begin, end) of the file, which may be short at `to`. */
  const bytes = async (begin: number, end: number): Promise<Buffer> => {
    if (begin < windowAt || end > windowAt + window.length) {
      const fresh = Buffer.allocUnsafe(Math.max(0, Math.min(Math.max(end - begin, WINDOW_BYTES), to - begin)))
      window = fresh.subarray(0, await readInto(fd, fresh, begin, true))
      windowAt = begin
    }
    return window.subarray(begin - windowAt, end - windowAt)
  }
  for (;;) {
    const headBytes = groupHeadBytes(await bytes(at, at + GROUP_HEAD_BYTES), 0)
    if (headBytes === null || at + headBytes > to) return at
    const head = decodeGroupHead(await bytes(at, at + headBytes))
    if (head === null || (list.sequence >= 0 && head.sequence !== list.sequence + 1)) return at
    const end = at + headBytes + head.payloadBytes
    if (end > to) return at
    if (end > verifyFrom) {
      let frameAt = at + headBytes
      for (const place of head.frames) {
        if (!isPlacedFrame(await bytes(frameAt, frameAt + place.sizeBytes), place)) return at
        frameAt += place.sizeBytes
      }
    }
    applyGroup(list, segment, head, at)
    at = end
  }
}

/** Byte of a valid group later than `sequence` in [from, to), or null: what tells damaged groups from a torn tail. */
export async function findLaterGroup(fd: number, from: number, to: number, sequence: number): Promise<number | null> {
  const magic = Buffer.alloc(4)
  magic.writeUInt32BE(GROUP_MAGIC, 0)
  for (let windowAt = from; windowAt < to; windowAt += WINDOW_BYTES) {
    const window = Buffer.alloc(Math.min(WINDOW_BYTES + GROUP_HEAD_BYTES, to - windowAt))
    await readInto(fd, window, windowAt)
    for (let at = window.indexOf(magic); at >= 0 && at < WINDOW_BYTES; at = window.indexOf(magic, at + 1)) {
      const headBytes = groupHeadBytes(window, at)
      if (headBytes === null || windowAt + at + headBytes > to) continue
      const bytes = Buffer.alloc(headBytes)
      await readInto(fd, bytes, windowAt + at)
      const head = decodeGroupHead(bytes)
      if (head !== null && head.sequence > sequence + 1) return windowAt + at
    }
  }
  return null
}

/** Bytes from `from` to the last one that is not zero: zeros are room that was made ahead. */
export async function tornBytes(fd: number, from: number, to: number): Promise<number> {
  let torn = 0
  const window = Buffer.alloc(WINDOW_BYTES)
  for (let windowAt = from; windowAt < to; windowAt += WINDOW_BYTES) {
    const length = await readInto(fd, window.subarray(0, Math.min(WINDOW_BYTES, to - windowAt)), windowAt)
    for (let at = length - 1; at >= 0; at--) {
      if (window[at] === 0) continue
      torn = windowAt + at + 1 - from
      break
    }
  }
  return torn
}
