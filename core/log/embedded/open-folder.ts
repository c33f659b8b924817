import fs from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { AppendFile } from './append-file.ts'
import { beginSegment, CommitQueue, type Logging } from './commit-queue.ts'
import { type CommittedMark, readMark } from './committed-mark.ts'
import { corrupt, fdatasync, syncFolder } from './file-io.ts'
import { findLaterGroup, scanGroups, tornBytes } from './group-scan.ts'
import { Segment } from './segment.ts'
import { listSegmentFiles, missingSegment, removeFile, SegmentList } from './segment-list.ts'

/** The segments and the mark of a log in its folder. */
export function segmentFolder(dir: string): string {
  return path.join(dir, 'segments')
}

export function markFile(dir: string): string {
  return path.join(dir, 'committed')
}

/**
 * Opens a folder for writing; the caller holds its lock. Cuts a torn tail, finishes what a crash left half done (a segment begun, segments
 * replaced), makes everything durable before anybody sees it.
 * @throws log.corrupt when bytes that were committed are damaged or missing
 */
export async function openForWriting(dir: string, segmentBytes: number, logger: Logging | undefined): Promise<{ list: SegmentList; queue: CommitQueue }> {
  fs.mkdirSync(segmentFolder(dir), { recursive: true })
  const markFd = fs.openSync(markFile(dir), fs.constants.O_RDWR | fs.constants.O_CREAT)
  try {
    const mark = readMark(markFd)
    const list = new SegmentList(segmentFolder(dir))
    const segments = listSegmentFiles(list.dir, true)
    const newest = segments.at(-1)
    if (mark !== null && (newest === undefined || newest.last < mark.segment)) throw missingSegment(list.dir, mark.segment)
    await readFooters(segments)
    let file: AppendFile
    if (newest === undefined || newest.sealed) file = await begin(list, segments, newest === undefined ? 0 : newest.last + 1, segmentBytes)
    else file = await recover(list, segments, newest, mark, segmentBytes, logger)
    return { list, queue: new CommitQueue(list, file, markFd, (mark?.generation ?? 0) + 1, segmentBytes, logger) }
  } catch (error) {
    fs.closeSync(markFd)
    throw error
  }
}

/** All but the last must have one. */
async function readFooters(segments: readonly Segment[]): Promise<void> {
  for (const segment of segments) {
    if (!(await segment.readFooter()) && segment !== segments.at(-1)) throw corrupt(segment.path, 0, 'the footer of a sealed segment is missing or damaged')
  }
}

/** A new active segment after `sealed`, whose state is that of the last group of the one before. */
async function begin(list: SegmentList, sealed: readonly Segment[], number: number, segmentBytes: number): Promise<AppendFile> {
  const before = sealed.at(-1)
  if (before !== undefined) {
    const fd = fs.openSync(before.path, 'r')
    try {
      // the footer has its frames, but its groups have the state: they are replayed on the side
      const replay = new SegmentList(list.dir)
      await scanGroups(replay, new Segment(list.dir, before), fd, 0, before.sizeBytes, before.sizeBytes)
      if (replay.sequence < 0) throw missingSegment(list.dir, number)
      list.state.apply(replay.state.whole())
      list.sequence = replay.sequence
    } finally {
      fs.closeSync(fd)
    }
  }
  const [segment, file] = await beginSegment(list, number, segmentBytes)
  list.segments = [...sealed, segment]
  return file
}

/** Replays the segment that was appended to last, and cuts what no append was told of. */
async function recover(
  list: SegmentList,
  segments: readonly Segment[],
  newest: Segment,
  mark: CommittedMark | null,
  segmentBytes: number,
  logger: Logging | undefined,
): Promise<AppendFile> {
  const committed = mark?.segment === newest.first ? mark.bytes : 0
  const fd = fs.openSync(newest.path, 'r+')
  try {
    const { size } = fs.fstatSync(fd)
    const end = await scanGroups(list, newest, fd, 0, size, committed)
    if (end < committed) throw corrupt(newest.path, end, 'a committed group is damaged or cut short')
    const later = await findLaterGroup(fd, end, size, list.sequence)
    if (later !== null) throw corrupt(newest.path, end, `a committed group is damaged; a later one at byte ${later} is whole`)
    if (end > 0) {
      if (end < size) {
        const torn = await tornBytes(fd, end, size)
        if (torn > 0) logger?.info({ file: newest.path, at: end, sizeBytes: torn }, 'cut a torn tail, of which no append was told')
        await promisify(fs.ftruncate)(fd, end)
      }
      await fdatasync(fd)
      await syncFolder(list.dir)
      list.segments = segments
      return new AppendFile(fd, end, segmentBytes)
    }
  } catch (error) {
    fs.closeSync(fd)
    throw error
  }
  // the crash came while this segment was begun: nothing is in it yet
  fs.closeSync(fd)
  if (segments.length === 1 && newest.first > 0) throw corrupt(newest.path, 0, 'its first group is damaged')
  removeFile(newest.path)
  return begin(list, segments.slice(0, -1), newest.first, segmentBytes)
}
