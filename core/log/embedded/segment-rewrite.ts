import fs from 'node:fs'
import path from 'node:path'
import { asLogError, fdatasync, syncFolder, writeAll } from './file-io.ts'
import { ENTRY_BYTES, type FrameEntry, readEntry } from './frame-entry.ts'
import { checkFrame } from './frame-reader.ts'
import { Segment, segmentFileName } from './segment.ts'

const ENTRIES_AT_ONCE = 512
const WRITE_BYTES = 1024 * 1024

/** Every frame of the partition in the segment, in order, checked. The frame is valid until the next is asked for. */
export async function* framesOf(segment: Segment, key: number, from: bigint): AsyncGenerator<{ entry: FrameEntry; frame: Buffer }, void, void> {
  if (!(await segment.acquire())) throw asLogError(new Error('it was removed'), 'reading', segment.path)
  try {
    const count = segment.range(key)?.count ?? 0
    let buffer = Buffer.alloc(0)
    for (let index = await segment.find(key, from); index < count; index += ENTRIES_AT_ONCE) {
      const window = await segment.entries(key, index, Math.min(count, index + ENTRIES_AT_ONCE))
      for (let i = 0; i < window.length / ENTRY_BYTES; i++) {
        const entry = readEntry(window, i)
        if (buffer.length < entry.sizeBytes) buffer = Buffer.allocUnsafeSlow(entry.sizeBytes)
        const frame = buffer.subarray(0, entry.sizeBytes)
        await segment.read(frame, entry.at)
        checkFrame(frame, entry, segment)
        yield { entry, frame }
      }
    }
  } finally {
    await segment.release()
  }
}

/**
 * Writes one sealed segment that holds, of the run's, the frames that `keep` returns: sorted by partition. It has its final name only once
 * `beforeRename` has resolved; from then on it stands for the run, whose files the caller removes.
 */
export async function rewriteRun(
  run: readonly Segment[],
  keep: (key: number, entry: FrameEntry, frame: Buffer) => { readonly frame: Buffer; readonly count: number } | null,
  startOf: (key: number) => bigint,
  signal: AbortSignal,
  beforeRename: () => Promise<void>,
): Promise<Segment> {
  const dir = path.dirname(run[0]!.path)
  const name = { first: run[0]!.first, last: run.at(-1)!.last, version: Math.max(...run.map((segment) => segment.version)) + 1 }
  const replacement = new Segment(dir, name)
  const temporary = path.join(dir, `${segmentFileName(name)}.tmp`)
  const fd = fs.openSync(temporary, 'w')
  const held: Segment[] = []
  try {
    // open throughout, not once for each partition
    for (const segment of run) if (await segment.acquire()) held.push(segment)
    let parts: Buffer[] = []
    let [waiting, at] = [0, 0]
    const flush = async () => {
      await writeAll(fd, parts, at - waiting)
      parts = []
      waiting = 0
    }
    const keys = [...new Set(run.flatMap((segment) => segment.keys))].sort((a, b) => a - b)
    for (const key of keys) {
      for (const segment of run) {
        for await (const { entry, frame } of framesOf(segment, key, startOf(key))) {
          signal.throwIfAborted()
          const kept = keep(key, entry, frame)
          if (kept === null) continue
          replacement.add(key, { ...entry, at, sizeBytes: kept.frame.length, count: kept.count })
          parts.push(Buffer.from(kept.frame))
          at += kept.frame.length
          waiting += kept.frame.length
          if (waiting >= WRITE_BYTES) await flush()
        }
      }
    }
    if (waiting > 0) await flush()
    const footer = replacement.footer(at)
    await writeAll(fd, footer.bytes, at)
    await fdatasync(fd)
    replacement.sizeBytes = at
    replacement.seal(footer.directory)
    await beforeRename()
    fs.renameSync(temporary, replacement.path)
    await syncFolder(dir)
    return replacement
  } finally {
    for (const segment of held) await segment.release()
    fs.closeSync(fd)
    fs.rmSync(temporary, { force: true })
  }
}
