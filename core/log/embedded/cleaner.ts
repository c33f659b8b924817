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

  constructor(list: SegmentList, queue: CommitQueue, settings: CleanerSettings, logger: Logging | undefined) {
    this.#list = list
    this.#queue = queue
    this.#settings = settings
    this.#logger = logger
  }

  /** One pass; passes take turns. @throws log.full, log.corrupt, log.unreachable: the log is as it was, or partly cleaned */
  clean(options: CleanOptions = {}): Promise<void> {
    const pass = this.#turn.then(() => this.#pass(options.force ?? false, options.nowMs ?? Date.now()))
    this.#turn = pass.catch(() => {})
    return pass
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
      for (const state of this.#list.state.partitions) await this.#compact(state, force, nowMs)
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
   * One pass over a compacted partition, as Kafka's cleaner does it: the last offset of each key in the dirty part, as much of it as memory
   * takes, then all segments from the oldest on without the records that these supersede.
   */
  async #compact(state: PartitionState, force: boolean, nowMs: number): Promise<void> {
    if (!this.#list.state.topicOf(state).compacted) return
    const tombstonesUpTo = nowMs - this.#settings.tombstoneMs
    for (;;) {
      const holding = this.#sealed().filter((segment) => (segment.range(state.key)?.next ?? -1n) > state.start)
      const sum = (segments: readonly Segment[]) => segments.reduce((n, segment) => n + segment.range(state.key)!.sizeBytes, 0)
      const dirty = holding.filter((segment) => segment.range(state.key)!.next > state.cleanTo)
      const hasTombstones = force && holding.length > 0
      if (dirty.length === 0 ? !hasTombstones : !force && sum(dirty) * 2 < sum(holding)) return
      const records = dirty.reduce((n, segment) => n + Number(segment.range(state.key)!.next - segment.range(state.key)!.first), 0)
      const table = new KeyTable(Math.min(records, this.#settings.keysInMemory))
      const to = await this.#readKeys(state, dirty, table)
      await this.#setFacts(state, { compactedTo: to })
      const inRun = new Set(holding)
      for (const run of this.#runs(this.#sealed(), (segment) => inRun.has(segment), Number.POSITIVE_INFINITY)) {
        await this.#replace(run, { state, table, to, tombstonesUpTo })
      }
      await this.#setFacts(state, { cleanTo: to })
      if (to >= (holding.at(-1)?.range(state.key)?.next ?? to)) return
    }
  }

  /** Fills the table from the dirty part; returns the offset up to which it knows all keys. */
  async #readKeys(state: PartitionState, dirty: readonly Segment[], table: KeyTable): Promise<bigint> {
    let to = state.cleanTo
    for (const segment of dirty) {
      for await (const { entry, frame } of framesOf(segment, state.key, to)) {
        this.#stop.signal.throwIfAborted()
        for (const record of records(frame)) {
          if (record.keyFrom < 0 || record.offset < to) continue
          // at least one record must be taken, else the pass would never end
          if (table.isFull) return record.offset
          table.set(frame.subarray(record.keyFrom, record.keyTo), record.offset)
        }
        to = nextOffsetOf(entry)
      }
    }
    return to
  }

  async #setFacts(
    state: PartitionState,
    facts: { readonly compactedTo?: bigint; readonly cleanTo?: bigint; readonly tombstonesGoneTo?: bigint },
  ): Promise<void> {
    const changed = Object.entries(facts).filter(([name, value]) => value > state[name as keyof typeof facts])
    if (changed.length === 0) return
    const bounds = Object.fromEntries(changed.map(([name, value]) => [name, String(value)]))
    await this.#queue.submit(null, null, [], { partitions: [{ id: state.topicId, partition: state.partition, ...bounds }] })
  }

  async #replace(run: readonly Segment[], compaction: Compaction | null): Promise<void> {
    const list = this.#list
    let tombstonesGoneTo = -1n
    const replacement = await rewriteRun(
      run,
      (key, entry, frame) => {
        if (key !== compaction?.state.key || entry.baseOffset >= compaction.to) return { frame, count: entry.count }
        return compactFrame(frame, (record) => {
          if (record.keyFrom < 0 || record.offset >= compaction.to) return true
          if (compaction.table.last(frame.subarray(record.keyFrom, record.keyTo)) > record.offset) return false
          if (record.valueFrom >= 0 || entry.appendedAt >= compaction.tombstonesUpTo) return true
          if (record.offset >= tombstonesGoneTo) tombstonesGoneTo = record.offset + 1n
          return false
        })
      },
      (key) => list.state.partition(key)!.start,
      this.#stop.signal,
      async () => {
        if (compaction !== null && tombstonesGoneTo >= 0n) await this.#setFacts(compaction.state, { tombstonesGoneTo })
      },
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

interface Compaction {
  readonly state: PartitionState
  readonly table: KeyTable
  readonly to: bigint
  readonly tombstonesUpTo: number
}
