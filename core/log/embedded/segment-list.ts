import { readdirSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import type { MillraceError } from '../../errors.ts'
import { corrupt, errnoOf } from './file-io.ts'
import { LogState } from './log-state.ts'
import { appendedName, parseSegmentFileName, Segment, segmentFileName } from './segment.ts'

/** Somebody who waits for records; told which partitions have grown. */
export interface Waiter {
  grown(key: number): void
  /** The log was closed, or failed. */
  ended(error: Error | null): void
}

/** The committed log as readers see it: state, segments in order, the last of which grows, and who waits for more. One per open log. */
export class SegmentList {
  readonly dir: string
  readonly state = new LogState()
  /** Rising and without overlap; replaced, never changed. */
  segments: readonly Segment[] = []
  /** Sequence of the last group. */
  sequence = -1
  closed = false
  /** Set when another process writes: looks at what it has done. */
  refresh: (() => Promise<void>) | null = null
  #failure: Error | null = null
  readonly #waiters = new Map<number, Set<Waiter>>()

  constructor(dir: string) {
    this.dir = dir
  }

  /** The state, unless what another process writes can no longer be followed. @throws log.corrupt, log.unreachable */
  get current(): LogState {
    if (this.#failure !== null) throw this.#failure
    return this.state
  }

  get active(): Segment {
    return this.segments.at(-1)!
  }

  /** The segment that holds `offset` or what follows it, or undefined. */
  find(key: number, offset: bigint): Segment | undefined {
    return this.segments.find((segment) => {
      const range = segment.range(key)
      return range !== null && range.next > offset
    })
  }

  wait(keys: readonly number[], waiter: Waiter): void {
    for (const key of keys) {
      const waiters = this.#waiters.get(key)
      if (waiters === undefined) this.#waiters.set(key, new Set([waiter]))
      else waiters.add(waiter)
    }
  }

  unwait(keys: readonly number[], waiter: Waiter): void {
    for (const key of keys) {
      const waiters = this.#waiters.get(key)
      waiters?.delete(waiter)
      if (waiters?.size === 0) this.#waiters.delete(key)
    }
  }

  grown(key: number): void {
    const waiters = this.#waiters.get(key)
    if (waiters !== undefined) for (const waiter of waiters) waiter.grown(key)
  }

  allGrown(): void {
    for (const key of this.#waiters.keys()) this.grown(key)
  }

  /** Ends all readers: the log is closed, or cannot be followed any more. */
  end(error: Error | null): void {
    this.#failure ??= error
    this.closed = error === null
    for (const waiters of this.#waiters.values()) for (const waiter of waiters) waiter.ended(error)
  }
}

/** The segment files of a folder in order. One that the cleaner has replaced but not yet removed is left out, and removed when `remove`. */
export function listSegmentFiles(dir: string, remove: boolean): Segment[] {
  const names = []
  for (const file of readdirSync(dir)) {
    const name = parseSegmentFileName(file)
    if (name !== null) names.push(name)
    else if (remove && file.endsWith('.tmp')) unlinkSync(path.join(dir, file))
  }
  names.sort((a, b) => a.first - b.first || b.last - a.last || b.version - a.version)
  const segments: Segment[] = []
  for (const name of names) {
    const before = segments.at(-1)
    if (before !== undefined && name.last <= before.last) {
      if (remove) removeFile(path.join(dir, segmentFileName(name)))
      continue
    }
    if (before !== undefined && name.first !== before.last + 1) throw missingSegment(dir, before.last + 1)
    segments.push(new Segment(dir, name))
  }
  return segments
}

export function missingSegment(dir: string, number: number): MillraceError {
  return corrupt(path.join(dir, segmentFileName(appendedName(number))), 0, 'this segment is missing')
}

export function removeFile(file: string): void {
  try {
    unlinkSync(file)
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error
  }
}
