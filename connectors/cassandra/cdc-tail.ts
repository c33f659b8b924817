import { MillraceError } from '../../core/plugin.ts'
import type { CdcDirectory, CdcSegment } from './cdc-directory.ts'
import { type EntryBlock, type SegmentIndex, SegmentReader } from './segment-reader.ts'

export interface TailedBlock {
  readonly segment: number
  readonly file: string
  readonly block: EntryBlock
}

/** Follows a node's `cdc_raw` folder, segment after segment, up to what each `_cdc.idx` says is durable. Not reentrant. */
export class CdcTail implements AsyncDisposable {
  readonly #directory: CdcDirectory
  readonly #node: string
  #segment: number
  #position: number
  #current: CdcSegment | null = null
  #reader: SegmentReader | null = null
  /** Never lower than before. */
  #until = 0

  /** @param node for what repairs a loss */
  constructor(directory: CdcDirectory, segment: number, position: number, node: string) {
    this.#directory = directory
    this.#segment = segment
    this.#position = position
    this.#node = node
  }

  /** Where everything before was given. */
  get place(): { readonly segment: number; readonly position: number } {
    return { segment: this.#segment, position: this.#position }
  }

  /**
   * The next entries; null when there are none now.
   * @throws source.history_lost when a segment is gone before it was read; source.protocol for one that is broken
   */
  async next(): Promise<TailedBlock | null> {
    for (;;) {
      const segments = this.#current === null ? await this.#directory.list() : null
      this.#current ??= segments!.find(({ id }) => id === this.#segment) ?? null
      const current = this.#current
      if (current === null) {
        // nothing of it was captured, so that there was nothing, or it would be here
        if (this.#position > 0) throw this.#lost()
        if (!(await this.#moveOn(null))) return null
        continue
      }
      const index = await this.#directory.index(current)
      if (index === null) {
        // it is written in place, and may be empty for a moment
        if (await this.#directory.hasIndexNow(current)) return null
        if (this.#position > 0) throw this.#lost()
        if (!(await this.#moveOn(current))) return null
        continue
      }
      const block = await this.#read(current, index)
      if (block !== null) return { segment: current.id, file: current.file, block }
      if (!index.completed) return null
      if (!(await this.#moveOn(current))) return null
    }
  }

  async #read(current: CdcSegment, index: SegmentIndex): Promise<EntryBlock | null> {
    try {
      this.#reader ??= await SegmentReader.open(current.file, this.#position, await this.#directory.open(current))
      this.#until = Math.max(this.#until, index.until)
      const block = await this.#reader.read({ until: this.#until, completed: index.completed })
      if (block !== null) this.#position = block.positions.at(-1)!
      return block
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw this.#lost()
      throw error
    }
  }

  /**
   * To the next segment that has something of a captured table.
   * @param done read to its end; or it has no index, and gets none any more once a later one has its own: a node syncs its segments in order
   */
  async #moveOn(done: CdcSegment | null): Promise<boolean> {
    const next = (await this.#directory.list()).find(({ id, hasIndex }) => id > this.#segment && hasIndex)
    if (next === undefined) return false
    if (done !== null && this.#position === 0 && (await this.#directory.hasIndexNow(done))) return true
    await this.#reader?.[Symbol.asyncDispose]()
    this.#reader = null
    this.#current = next
    this.#segment = next.id
    this.#position = 0
    this.#until = 0
    return true
  }

  #lost(): MillraceError {
    return historyLost(`segment ${this.#segment} is gone from ${this.#directory.path}, which was read up to ${this.#position}`, this.#node)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#reader?.[Symbol.asyncDispose]()
  }
}

export function historyLost(what: string, node: string, cause?: unknown): MillraceError {
  return new MillraceError('source.history_lost', what, {
    fix: `read the tables anew: \`millrace run FILE --resnapshot ${node}\`; or bring the missing files back and start again`,
    cause,
  })
}
