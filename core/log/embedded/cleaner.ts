import { asMillraceError } from '../../errors.ts'
import { records } from '../../event/record-batch.ts'
import type { CommitQueue, Logging } from './commit-queue.ts'
import { compactFrame } from './compact-frame.ts'
import { asLogError } from './file-io.ts'
import { nextOffsetOf, readEntry } from './frame-entry.ts'
import { KeyTable } from './key-table.ts'
import type { PartitionFacts, PartitionState } from './log-state.ts'
import type { Segment } from './segment.ts'
import { removeFile, type SegmentList } from './segment-list.ts'
import { framesOf, rewriteRun } from './segment-rewrite.ts'

export interface CleanerSettings {
  /** Bytes that a partition may keep, null for no bound; whole segments' worth is dropped. Never applies to compacted topics. */
  readonly retentionBytes: number | null
  /** How long a tombstone outlives its append before compaction removes it. */
  readonly tombstoneMs: number
  /** Keys that one compaction pass holds in memory, at 32 bytes each. */
  readonly keysInMemory: number
  /** A rewritten segment is at most about this large. */
  readonly runBytes: number
  /** The active segment is sealed at this age when there is something in it to clean. */
  readonly segmentMs: number
}

export interface CleanOptions {
  /** Cleans whatever can be cleaned, the active segment included, however little it gains. */
  readonly force?: boolean
  /** The present, milliseconds since epoch. */
  readonly nowMs?: number
}

/**
 * Retention and compaction. Expiry moves a partition's start, in a commit of its own; the bytes go when a whole run of sealed segments is rewritten
 * or dropped. The new file takes its name only when it is durable, and readers keep what they have open: a crash leaves the old or the new.
 */
export class Cleaner {
  readonly #list: SegmentList
  readonly #queue: CommitQueue
  readonly #settings: CleanerSettings
  readonly #logger: Logging | undefined
  readonly #stop = new AbortController()
  #turn: Promise<void> = Promise.resolve()
  #running = 0

  constructor(list: SegmentList, queue: CommitQueue, settings: CleanerSettings, logger: Logging | undefined) {
    this.#list = list
    this.#queue = queue
    this.#settings = settings
    this.#logger = logger
  }

  /** One pass; passes take turns. @throws log.full, log.corrupt, log.unreachable: the log is as it was, or partly cleaned */
  clean(options: CleanOptions = {}): Promise<void> {
    this.#running++
    const pass = this.#turn.then(() => this.#pass(options.force ?? false, options.nowMs ?? Date.now()))
    this.#turn = pass
      .catch(() => {})
      .then(() => {
        this.#running--
      })
    return pass
  }

  /** One pass unless one is running. What goes wrong is logged, and tried again with the next. */
  cleanQuietly(): void {
    if (this.#running > 0) return
    this.clean().catch((error: unknown) => this.#logger?.warn({ err: asMillraceError(error) }, 'cleaning the log failed; it is tried again'))
  }

  /** Ends a pass that runs, at the next frame. */
  async close(): Promise<void> {
    this.#stop.abort()
    await this.#turn
  }

  async #pass(force: boolean, nowMs: number): Promise<void> {
    try {
      this.#stop.signal.throwIfAborted()
      await this.#expire(nowMs)
      await this.#rollIfDue(force, nowMs)
      await this.#compact(force, nowMs)
      for (let [oldest] = this.#sealed(); oldest !== undefined && this.#deadShare(oldest) === 1; [oldest] = this.#sealed()) this.#swap([oldest], [])
      for (const run of this.#runs(this.#sealed(), (segment) => this.#deadShare(segment) >= (force ? Number.MIN_VALUE : 0.5), 2)) await this.#replace(run, null)
    } catch (error) {
      if (this.#stop.signal.aborted) return
      throw asLogError(error, 'cleaning', this.#list.dir)
    }
  }

  #sealed(): readonly Segment[] {
    return this.#list.segments.filter((segment) => segment.sealed)
  }

  async #expire(nowMs: number): Promise<void> {
    const moved: PartitionFacts[] = []
    for (const state of this.#list.state.partitions) {
      const start = await this.#startOf(state, nowMs)
      if (start > state.start) moved.push({ id: state.topicId, partition: state.partition, start: String(start) })
    }
    if (moved.length > 0) await this.#queue.submit(null, null, [], { partitions: moved })
  }

  async #startOf(state: PartitionState, nowMs: number): Promise<bigint> {
    const topic = this.#list.state.topicOf(state)
    const holding = this.#list.segments.filter((segment) => (segment.range(state.key)?.next ?? -1n) > state.start)
    let start = state.start
    if (this.#settings.retentionBytes !== null && !topic.compacted) {
      let sizeBytes = 0
      for (const segment of holding.toReversed()) {
        const range = segment.range(state.key)!
        if (sizeBytes >= this.#settings.retentionBytes && range.next > start) start = range.next
        sizeBytes += range.sizeBytes
      }
    }
    if (topic.retentionMs === null) return start
    const cutoff = nowMs - topic.retentionMs
    for (const segment of holding) {
      const range = segment.range(state.key)!
      if (range.newestAt < cutoff) {
        if (range.next > start) start = range.next
        continue
      }
      if (!(await segment.acquire())) break
      try {
        for (let index = await segment.find(state.key, start); index < range.count; index++) {
          const entry = readEntry(await segment.entries(state.key, index, index + 1), 0)
          if (entry.appendedAt >= cutoff) return start
          start = nextOffsetOf(entry)
        }
      } finally {
        await segment.release()
      }
    }
    return start
  }

  async #rollIfDue(force: boolean, nowMs: number): Promise<void> {
    const { active, state } = this.#list
    if (active.frames === 0) return
    const isDirty = active.keys.some((key) => {
      const partition = state.partition(key)!
      return state.topicOf(partition).compacted || partition.start > active.range(key)!.first
    })
    const oldest = Math.min(...active.keys.map((key) => active.range(key)!.newestAt))
    if (isDirty && (force || nowMs - oldest >= this.#settings.segmentMs)) await this.#queue.between(() => this.#queue.roll())
  }

  /** Share of the segment's bytes that lie before the start of their partition, 0 to 1; of a partition cut in the middle, by offsets. */
  #deadShare(segment: Segment): number {
    let [dead, whole] = [0, 0]
    for (const key of segment.keys) {
      const range = segment.range(key)!
      whole += range.sizeBytes
      const { start } = this.#list.state.partition(key)!
      if (start >= range.next) dead += range.sizeBytes
      else if (start > range.first) dead += (range.sizeBytes * Number(start - range.first)) / Number(range.next - range.first)
    }
    return dead === whole ? 1 : dead / whole
  }

  /** Neighbours to rewrite into one: those that are `due`, and small ones beside each other, of at most `runBytes` together. */
  #runs(segments: readonly Segment[], due: (segment: Segment) => boolean, smallOnes: number): Segment[][] {
    const { runBytes } = this.#settings
    const isSmall = (segment: Segment) => segment.sizeBytes < runBytes / 16
    const runs: Segment[][] = []
    let run: Segment[] = []
    let sizeBytes = 0
    const end = () => {
      if (run.some(due) || run.length >= Math.max(2, smallOnes * 4)) runs.push(run)
      run = []
      sizeBytes = 0
    }
    for (const segment of segments) {
      const isDue = due(segment)
      const live = segment.sizeBytes * (1 - this.#deadShare(segment))
      if ((!isDue && !isSmall(segment)) || sizeBytes + live > runBytes) end()
      if (!isDue && !isSmall(segment)) continue
      run.push(segment)
      sizeBytes += live
    }
    end()
    return runs
  }

  /**
   * Compaction as Kafka's cleaner does it: the last offset of each key in the dirty part, as much of it as memory takes, then all segments from the
   * oldest on without the records that these supersede. All compacted topics at once, since they share segments; when half of them is dirty.
   */
  async #compact(force: boolean, nowMs: number): Promise<void> {
    for (let first = true; ; first = false) {
      const parts = this.#compactedParts()
      const sum = (of: (part: CompactedPart) => number) => parts.reduce((n, part) => n + of(part), 0)
      const dirtyBytes = sum((part) => part.dirtyBytes)
      if (parts.length === 0 || (dirtyBytes === 0 ? !(force && first) : !force && first && dirtyBytes * 2 < sum((part) => part.sizeBytes))) return
      const table = new KeyTable(
        Math.min(
          sum((part) => part.dirtyRecords),
          this.#settings.keysInMemory,
        ),
      )
      const plans = new Map<number, CompactionPlan>()
      for (const part of parts) {
        const { to, isWhole } = await this.#readKeys(part, table)
        plans.set(part.state.key, { state: part.state, to })
        if (!isWhole) break
      }
      await this.#setFacts(Array.from(plans.values(), ({ state, to }) => ({ state, compactedTo: to })))
      const holding = new Set(parts.filter((part) => plans.has(part.state.key)).flatMap((part) => part.holding))
      const compaction = { plans, table, tombstonesUpTo: nowMs - this.#settings.tombstoneMs }
      for (const run of this.#runs(this.#sealed(), (segment) => holding.has(segment), Number.POSITIVE_INFINITY)) await this.#replace(run, compaction)
      await this.#setFacts(Array.from(plans.values(), ({ state, to }) => ({ state, cleanTo: to })))
    }
  }

  /** Compacted partitions with frames in sealed segments. Those without a dirty part are among them: their old tombstones may go. */
  #compactedParts(): CompactedPart[] {
    const parts: CompactedPart[] = []
    const sealed = this.#sealed()
    for (const state of this.#list.state.partitions) {
      if (!this.#list.state.topicOf(state).compacted) continue
      const holding = sealed.filter((segment) => (segment.range(state.key)?.next ?? -1n) > state.start)
      if (holding.length === 0) continue
      const dirty = holding.filter((segment) => segment.range(state.key)!.next > state.cleanTo)
      const sizeOf = (segments: readonly Segment[]) => segments.reduce((n, segment) => n + segment.range(state.key)!.sizeBytes, 0)
      const end = holding.at(-1)!.range(state.key)!.next
      const dirtyRecords = end > state.cleanTo ? Number(end - state.cleanTo) : 0
      parts.push({ state, holding, dirty, sizeBytes: sizeOf(holding), dirtyBytes: sizeOf(dirty), dirtyRecords })
    }
    return parts
  }

  /** Adds the dirty part's keys to the table; returns the offset up to which it knows them all, and whether that is the whole part. */
  async #readKeys({ state, dirty }: CompactedPart, table: KeyTable): Promise<{ readonly to: bigint; readonly isWhole: boolean }> {
    let to = state.cleanTo
    for (const segment of dirty) {
      for await (const { entry, frame } of framesOf(segment, state.key, to)) {
        this.#stop.signal.throwIfAborted()
        for (const record of records(frame)) {
          if (record.keyFrom < 0 || record.offset < to) continue
          if (table.isFull) return { to: record.offset, isWhole: false }
          table.set(state.key, frame.subarray(record.keyFrom, record.keyTo), record.offset)
        }
        to = nextOffsetOf(entry)
      }
    }
    return { to, isWhole: true }
  }

  /** Makes bounds of partitions durable; they only rise. */
  async #setFacts(bounds: readonly ({ readonly state: PartitionState } & Partial<Record<(typeof RISING)[number], bigint>>)[]): Promise<void> {
    const partitions: PartitionFacts[] = []
    for (const bound of bounds) {
      const raised = RISING.filter((name) => (bound[name] ?? -1n) > bound.state[name])
      if (raised.length === 0) continue
      partitions.push({ id: bound.state.topicId, partition: bound.state.partition, ...Object.fromEntries(raised.map((name) => [name, String(bound[name])])) })
    }
    if (partitions.length > 0) await this.#queue.submit(null, null, [], { partitions })
  }

  async #replace(run: readonly Segment[], compaction: Compaction | null): Promise<void> {
    const { state } = this.#list
    const tombstonesGoneTo = new Map<number, bigint>()
    const replacement = await rewriteRun(
      run,
      (key, entry, frame) => {
        const plan = compaction?.plans.get(key)
        if (compaction === null || plan === undefined || entry.baseOffset >= plan.to) return { frame, count: entry.count }
        return compactFrame(frame, (record) => {
          if (record.keyFrom < 0 || record.offset >= plan.to) return true
          if (compaction.table.last(key, frame.subarray(record.keyFrom, record.keyTo)) > record.offset) return false
          if (record.valueFrom >= 0 || entry.appendedAt >= compaction.tombstonesUpTo) return true
          tombstonesGoneTo.set(key, record.offset + 1n)
          return false
        })
      },
      (key) => state.partition(key)!.start,
      this.#stop.signal,
      () => this.#setFacts(Array.from(tombstonesGoneTo, ([key, to]) => ({ state: state.partition(key)!, tombstonesGoneTo: to }))),
    )
    this.#swap(run, [replacement])
  }

  /** Readers find the new segments from here on; those that read the old ones have them open. */
  #swap(run: readonly Segment[], by: readonly Segment[]): void {
    const list = this.#list
    const at = list.segments.indexOf(run[0]!)
    list.segments = list.segments.toSpliced(at, run.length, ...by)
    this.#queue.mark(true)
    try {
      for (const segment of run) removeFile(segment.path)
    } catch (error) {
      this.#logger?.warn({ err: asMillraceError(error) }, 'a replaced segment could not be removed; the next start removes it')
    }
  }
}

const RISING = ['compactedTo', 'cleanTo', 'tombstonesGoneTo'] as const

interface CompactedPart {
  readonly state: PartitionState
  readonly holding: readonly Segment[]
  readonly dirty: readonly Segment[]
  readonly sizeBytes: number
  readonly dirtyBytes: number
  /** At most so many keys are dirty. */
  readonly dirtyRecords: number
}

interface CompactionPlan {
  readonly state: PartitionState
  /** Records before it are compacted. */
  readonly to: bigint
}

interface Compaction {
  readonly plans: ReadonlyMap<number, CompactionPlan>
  readonly table: KeyTable
  readonly tombstonesUpTo: number
}
