import { randomUUID } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import type { Logger } from 'pino'
import type { MillraceError } from '../../errors.ts'
import { stampChecksum, stampOffset } from '../../event/record-batch.ts'
import type { EncodedBatch, Frame } from '../log.ts'
import { AppendFile } from './append-file.ts'
import { encodeGroupHead, type PlacedFrame } from './commit-group.ts'
import { writeMark } from './committed-mark.ts'
import { asLogError, fdatasync, syncFolder, writeAll } from './file-io.ts'
import { applyGroup } from './group-scan.ts'
import { type Facts, partitionKey } from './log-state.ts'
import { appendedName, Segment } from './segment.ts'
import type { SegmentList } from './segment-list.ts'

const GROUP_BYTES = 8 * 1024 * 1024
const GROUP_FRAMES = 1000
const SEGMENT_FRAMES = 65_536

export type Logging = Pick<Logger, 'warn' | 'info'>

/** Who submits batches; told when some of them failed, in their order, and everything it had in the queue with them. */
export interface BatchOwner {
  failed(batches: readonly EncodedBatch[], error: MillraceError): void
}

interface Pending {
  readonly owner: BatchOwner | null
  readonly batch: EncodedBatch | null
  readonly frames: readonly { readonly frame: Frame; readonly topicId: number }[]
  readonly facts: Facts | null
  readonly sizeBytes: number
  readonly resolve: () => void
  readonly reject: (error: MillraceError) => void
}

/**
 * Group commit: while one group is written and synced, the next gathers. One group is in flight at a time, so a torn tail is one group at most.
 * A group that fails leaves nothing behind: readers never saw it, and the next one is written in its place.
 */
export class CommitQueue {
  readonly #list: SegmentList
  readonly #markFd: number
  readonly #segmentBytes: number
  readonly #logger: Logging | undefined
  #file: AppendFile
  #generation: number
  #waiting: Pending[] = []
  #jobs: (() => Promise<void>)[] = []
  #running: Promise<void> | null = null
  #inFlight: Promise<void> | null = null

  /** `file` is the active segment's, `markFd` the committed mark's, open for writing; `close` closes them. */
  constructor(list: SegmentList, file: AppendFile, markFd: number, generation: number, segmentBytes: number, logger: Logging | undefined) {
    this.#list = list
    this.#file = file
    this.#markFd = markFd
    this.#generation = generation
    this.#segmentBytes = segmentBytes
    this.#logger = logger
    this.mark(false)
  }

  submit(owner: BatchOwner | null, batch: EncodedBatch | null, frames: Pending['frames'], facts: Facts | null): Promise<void> {
    return new Promise((resolve, reject) => {
      const sizeBytes = frames.reduce((n, { frame }) => n + frame.end, 0)
      this.#waiting.push({ owner, batch, frames, facts, sizeBytes, resolve, reject })
      this.#start()
    })
  }

  /** Runs `job` between two groups. */
  between(job: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#jobs.push(() => job().then(resolve, reject))
      this.#start()
    })
  }

  /** Takes what the owner has waiting back out of the queue and refuses it. What is in flight goes on: see {@link settled}. */
  refuse(owner: BatchOwner, error: MillraceError): EncodedBatch[] {
    const refused = this.#waiting.filter((pending) => pending.owner === owner)
    this.#waiting = this.#waiting.filter((pending) => pending.owner !== owner)
    for (const pending of refused) pending.reject(error)
    return refused.map((pending) => pending.batch!)
  }

  /** Waits until the group in flight, if any, has landed or failed. */
  async settled(): Promise<void> {
    await this.#inFlight
  }

  /** Waits until nothing is waiting. */
  async drained(): Promise<void> {
    while (this.#running !== null) await this.#running
  }

  async close(): Promise<void> {
    await this.drained()
    await this.#file.close(this.#list.active.sizeBytes)
    fs.closeSync(this.#markFd)
  }

  /** Tells readers in other processes how far the log is; `replaced`: that the list of segments is another. */
  mark(replaced: boolean): void {
    if (replaced) this.#generation++
    const { active } = this.#list
    try {
      writeMark(this.#markFd, { segment: active.first, bytes: active.sizeBytes, generation: this.#generation })
    } catch (error) {
      // the group is durable all the same: readers in other processes see it with the next
      this.#logger?.warn({ err: error }, 'the committed mark could not be written')
    }
  }

  #start(): void {
    this.#running ??= Promise.resolve()
      .then(() => this.#run())
      .finally(() => {
        this.#running = null
        if (this.#waiting.length > 0 || this.#jobs.length > 0) this.#start()
      })
  }

  async #run(): Promise<void> {
    while (this.#waiting.length > 0 || this.#jobs.length > 0) {
      const job = this.#jobs.shift()
      if (job !== undefined) {
        await job()
        continue
      }
      const group = this.#gather()
      this.#inFlight = this.#commit(group)
      await this.#inFlight
      this.#inFlight = null
      if (this.#list.active.sizeBytes >= this.#segmentBytes || this.#list.active.frames >= SEGMENT_FRAMES) {
        await this.roll().catch((error: unknown) => this.#logger?.warn({ err: error }, 'the log goes on in its segment: no new one could be made'))
      }
    }
  }

  #gather(): Pending[] {
    let [bytes, frames, count] = [0, 0, 0]
    for (const pending of this.#waiting) {
      if (count > 0 && (bytes + pending.sizeBytes > GROUP_BYTES || frames + pending.frames.length > GROUP_FRAMES)) break
      bytes += pending.sizeBytes
      frames += pending.frames.length
      count++
    }
    return this.#waiting.splice(0, count)
  }

  async #commit(group: readonly Pending[]): Promise<void> {
    const list = this.#list
    const { active } = list
    const at = active.sizeBytes
    try {
      const ends = new Map<number, bigint>()
      const places: PlacedFrame[] = []
      const buffers: Buffer[] = []
      for (const { frames } of group) {
        for (const { frame, topicId } of frames) {
          const key = partitionKey(topicId, frame.partition)
          const baseOffset = ends.get(key) ?? list.state.partition(key)!.end
          const offsets = frame.buffer.readInt32BE(23) + 1
          stampOffset(frame.buffer, baseOffset)
          stampChecksum(frame.buffer, frame.end)
          ends.set(key, baseOffset + BigInt(offsets))
          places.push({
            topicId,
            partition: frame.partition,
            baseOffset,
            sizeBytes: frame.end,
            count: frame.count,
            offsets,
            crc: frame.buffer.readUInt32BE(17),
          })
          buffers.push(frame.buffer.subarray(0, frame.end))
        }
      }
      const { bytes, head } = encodeGroupHead(list.sequence + 1, Date.now(), places, mergeFacts(group))
      // I5: progress and records are one group, valid as a whole or cut
      await this.#file.append([bytes, ...buffers], at)
      applyGroup(list, active, head, at)
    } catch (error) {
      await this.#fail(group, asLogError(error, 'appending to', active.path))
      return
    }
    this.mark(false)
    for (const pending of group) pending.resolve()
  }

  /** Refuses the group and, of each owner in it, all that waits behind: batches of one owner land in order or not at all. */
  async #fail(group: readonly Pending[], error: MillraceError): Promise<void> {
    await this.#file.cut().catch(() => {})
    for (const owner of new Set(group.map((pending) => pending.owner))) {
      if (owner === null) continue
      const batches = group.filter((pending) => pending.owner === owner).map((pending) => pending.batch!)
      owner.failed([...batches, ...this.refuse(owner, error)], error)
    }
    for (const pending of group) pending.reject(error)
  }

  /** Seals the active segment and begins the next. Only between groups. @throws log.full, log.unreachable: then the active one goes on */
  async roll(): Promise<void> {
    const list = this.#list
    const { active } = list
    const at = active.sizeBytes
    const footer = active.footer(at)
    let next: Segment
    let file: AppendFile
    try {
      await this.#file.seal(footer.bytes, at)
      ;[next, file] = await beginSegment(list, active.last + 1, this.#segmentBytes)
    } catch (error) {
      await this.#file.cut().catch(() => {})
      throw asLogError(error, 'beginning a segment after', active.path)
    }
    active.seal(footer.directory)
    this.#file.leave()
    this.#file = file
    list.segments = [...list.segments, next]
    this.mark(false)
  }
}

/** Makes the segment file `number`, which begins with the whole state, durable before it returns. The caller puts it into the list. */
export async function beginSegment(list: SegmentList, number: number, segmentBytes: number): Promise<[Segment, AppendFile]> {
  const segment = new Segment(list.dir, appendedName(number))
  const fd = fs.openSync(segment.path, 'w')
  try {
    const identity = list.state.identity ?? randomUUID()
    const { bytes } = encodeGroupHead(list.sequence + 1, Date.now(), [], { ...list.state.whole(), identity })
    await writeAll(fd, [bytes], 0)
    await fdatasync(fd)
    await syncFolder(path.dirname(segment.path))
    segment.sizeBytes = bytes.length
    list.sequence++
    list.state.identity = identity
    return [segment, new AppendFile(fd, bytes.length, segmentBytes)]
  } catch (error) {
    fs.closeSync(fd)
    fs.rmSync(segment.path, { force: true })
    throw error
  }
}

function mergeFacts(group: readonly Pending[]): Facts | null {
  const all = group.map((pending) => pending.facts).filter((facts) => facts !== null)
  if (all.length <= 1) return all[0] ?? null
  return {
    topics: all.flatMap((facts) => facts.topics ?? []),
    partitions: all.flatMap((facts) => facts.partitions ?? []),
    progress: all.flatMap((facts) => facts.progress ?? []),
  }
}
