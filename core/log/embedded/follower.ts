import fs from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError } from '../../errors.ts'
import { type CommittedMark, readMark } from './committed-mark.ts'
import { asLogError, corrupt, errnoOf } from './file-io.ts'
import { scanGroups } from './group-scan.ts'
import { markFile, segmentFolder } from './open-folder.ts'
import type { Segment } from './segment.ts'
import { listSegmentFiles, missingSegment, SegmentList } from './segment-list.ts'

const POLL_MS = 20
/** The writer may roll or clean while the folder is read; then it is read anew. */
const TRIES = 100

/** Follows a log that another process writes, by its committed mark: shows what is durable, and nothing else. */
export class Follower {
  readonly list: SegmentList
  readonly #markFd: number
  #mark: CommittedMark = { segment: -1, bytes: 0, generation: -1 }
  #refreshing: Promise<void> | null = null
  #again = false
  #timer: NodeJS.Timeout | null = null
  #watcher: fs.FSWatcher | null = null

  private constructor(dir: string, markFd: number) {
    this.list = new SegmentList(segmentFolder(dir))
    this.list.refresh = () => this.refresh()
    this.#markFd = markFd
  }

  /** @throws log.unreachable when no log was ever written there, log.corrupt */
  static async open(dir: string): Promise<Follower> {
    let markFd: number
    try {
      markFd = fs.openSync(markFile(dir), 'r')
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw asLogError(error, 'opening', dir)
      throw new MillraceError('log.unreachable', `no log was written to ${dir} yet`, {
        fix: 'Start the process that writes it, or correct the path.',
        retryAfterMs: 1000,
      })
    }
    const follower = new Follower(dir, markFd)
    try {
      await follower.refresh()
      if (follower.#mark.segment < 0) throw new MillraceError('log.unreachable', `no log was written to ${dir} yet`, { retryAfterMs: 1000 })
    } catch (error) {
      await follower.close()
      throw error
    }
    const look = () => {
      follower.refresh().catch((error: unknown) => {
        follower.#stop()
        follower.list.end(error instanceof Error ? error : new Error(String(error)))
      })
    }
    try {
      follower.#watcher = fs.watch(markFile(dir), { persistent: false }, look)
      follower.#watcher.on('error', () => follower.#watcher?.close())
    } catch {
      // no watches left, or a file system without them: the poll does alone
    }
    follower.#timer = setInterval(look, POLL_MS)
    return follower
  }

  async close(): Promise<void> {
    this.#stop()
    this.list.end(null)
    await this.#refreshing?.catch(() => {})
    fs.closeSync(this.#markFd)
  }

  #stop(): void {
    this.#watcher?.close()
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  /** Looks at what the writer has committed since. Calls at the same time share one look. */
  refresh(): Promise<void> {
    if (this.list.closed) return Promise.resolve()
    this.#again = true
    this.#refreshing ??= this.#look().finally(() => {
      this.#refreshing = null
    })
    return this.#refreshing
  }

  async #look(): Promise<void> {
    for (let tries = 0; this.#again && !this.list.closed; ) {
      this.#again = false
      const mark = readMark(this.#markFd)
      if (mark === null || (mark.segment === this.#mark.segment && mark.bytes === this.#mark.bytes && mark.generation === this.#mark.generation)) continue
      try {
        if (mark.segment !== this.#mark.segment || mark.generation !== this.#mark.generation) await this.#reload(mark)
        else await this.#scan(this.list, this.list.active, this.#mark.bytes, mark.bytes)
        this.#mark = mark
      } catch (error) {
        if (++tries === TRIES || this.list.closed) throw asLogError(error, 'following', this.list.dir)
        // from the start: the writer was just changing what we read
        this.#mark = { segment: -1, bytes: 0, generation: -1 }
        this.#again = true
        await delay(5)
      }
    }
  }

  async #reload(mark: CommittedMark): Promise<void> {
    const { list } = this
    const known = new Map(list.segments.map((segment) => [segment.path, segment]))
    const segments: Segment[] = []
    for (const segment of listSegmentFiles(list.dir, false)) {
      if (segment.first > mark.segment) break
      if (segment.last > mark.segment) throw corrupt(segment.path, 0, `segment ${mark.segment} was replaced while it was read`)
      const same = known.get(segment.path)
      // the active one is read anew from its start, since its state replaces what is known
      if (segment.first === mark.segment) segments.push(segment)
      else if (same !== undefined && (same.sealed || (await same.readFooter()))) segments.push(same)
      else if (await segment.readFooter()) segments.push(segment)
      else throw corrupt(segment.path, 0, 'the footer of a sealed segment is missing or damaged')
    }
    const active = segments.at(-1)
    if (active === undefined || active.first !== mark.segment) throw missingSegment(list.dir, mark.segment)
    // on the side, so that state and segments change in one step
    const replay = new SegmentList(list.dir)
    await this.#scan(replay, active, 0, mark.bytes)
    list.state.apply(replay.state.whole())
    list.sequence = replay.sequence
    list.segments = segments
    list.allGrown()
  }

  async #scan(list: SegmentList, segment: Segment, from: number, to: number): Promise<void> {
    const fd = fs.openSync(segment.path, 'r')
    try {
      const end = await scanGroups(list, segment, fd, from, to, to)
      if (end !== to) throw corrupt(segment.path, end, 'a committed group is damaged or cut short')
    } finally {
      fs.closeSync(fd)
    }
  }
}
