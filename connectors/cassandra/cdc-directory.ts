import { setTimeout as delay } from 'node:timers/promises'
import type { CdcFiles, SegmentBytes } from './cdc-files.ts'
import type { SegmentIndex } from './segment-reader.ts'

/** An index that says too little may be a part of one that is being written: for so long, by a server that waits for a core. */
const WRITING_MS = 5000
const LOOK_MS = 20

const SEGMENT = /^CommitLog-(\d+)-(\d+)\.log$/
const INDEX = /^CommitLog-(\d+)-(\d+)_cdc\.idx$/

export function isCdcFile(name: string): boolean {
  return SEGMENT.test(name) || INDEX.test(name)
}

export interface CdcSegment {
  /** Rises from segment to segment of a node: milliseconds of its start, and one more for each. */
  readonly id: number
  /** Without the folder. */
  readonly name: string
  readonly file: string
  readonly indexName: string
  /** There is something of a captured table in it, or was when the folder was listed. */
  readonly hasIndex: boolean
}

/** The `cdc_raw_directory` of a node: segments are linked there when they are made, and the node takes those away again that have nothing of tables with `cdc`. */
export class CdcDirectory {
  readonly path: string
  readonly #files: CdcFiles

  constructor(files: CdcFiles) {
    this.path = files.path
    this.#files = files
  }

  /** By id. @throws source.unprepared when the folder cannot be read */
  async list(): Promise<readonly CdcSegment[]> {
    const names = await this.#files.names()
    const indexed = new Set(names.filter((name) => INDEX.test(name)).map((name) => INDEX.exec(name)![2]))
    return names
      .flatMap((name) => {
        const found = SEGMENT.exec(name)
        if (found === null) return []
        const indexName = name.replace(/\.log$/, '_cdc.idx')
        return [{ id: Number(found[2]), name, file: `${this.path}/${name}`, indexName, hasIndex: indexed.has(found[2]) }]
      })
      .sort((a, b) => a.id - b.id)
  }

  /** Null: none yet, or it is just being written. */
  async index({ indexName }: CdcSegment): Promise<SegmentIndex | null> {
    const [until, completed] = (await this.#files.text(indexName))?.split('\n') ?? []
    // written in place: a part of the number would be a lower offset, which is as true
    return until === undefined || !/^\d+$/.test(until) ? null : { until: Number(until), completed: completed?.startsWith('COMPLETED') === true }
  }

  /** The index as soon as it says `least` or more. @returns else what it says after a while; null: there is none */
  async indexAt(segment: CdcSegment, least: number, writingMs = WRITING_MS): Promise<SegmentIndex | null> {
    for (const until = performance.now() + writingMs; ; await delay(LOOK_MS)) {
      // only a look that began after that long counts: one may take long itself, or this process stand still
      const isLast = performance.now() > until
      const index = await this.index(segment)
      if ((index !== null && index.until >= least) || isLast) return index
      if (index === null && !(await this.hasIndexNow(segment))) return null
    }
  }

  async hasIndexNow({ indexName }: CdcSegment): Promise<boolean> {
    return (await this.#files.size(indexName)) !== null
  }

  /** @throws an error with the code ENOENT when it is gone */
  open({ name }: CdcSegment): Promise<SegmentBytes> {
    return this.#files.open(name)
  }

  /** The segment first: an index without one means nothing. */
  async delete({ name, indexName }: CdcSegment): Promise<void> {
    await this.#files.remove(name)
    await this.#files.remove(indexName)
  }

  /** Bytes of what is kept for its consumer. */
  async bytes(segments: readonly CdcSegment[]): Promise<number> {
    let sum = 0
    for (const { name } of segments) sum += (await this.#files.size(name)) ?? 0
    return sum
  }
}
