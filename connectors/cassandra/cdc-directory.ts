import { existsSync } from 'node:fs'
import { readdir, readFile, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { MillraceError } from '../../core/plugin.ts'
import type { SegmentIndex } from './segment-reader.ts'

const SEGMENT = /^CommitLog-(\d+)-(\d+)\.log$/
const INDEX = /^CommitLog-(\d+)-(\d+)_cdc\.idx$/

export interface CdcSegment {
  /** Rises from segment to segment of a node: milliseconds of its start, and one more for each. */
  readonly id: number
  readonly file: string
  readonly indexFile: string
  /** There is something of a captured table in it, or was when the folder was listed. */
  readonly hasIndex: boolean
}

/** The `cdc_raw_directory` of a node: segments are linked there when they are made, and the node takes those away again that have nothing of tables with `cdc`. */
export class CdcDirectory {
  readonly path: string

  constructor(dir: string) {
    this.path = dir
  }

  /** By id. @throws source.unprepared when the folder cannot be read */
  async list(): Promise<readonly CdcSegment[]> {
    const names = await this.#names()
    const indexed = new Set(names.filter((name) => INDEX.test(name)).map((name) => INDEX.exec(name)![2]))
    return names
      .flatMap((name) => {
        const found = SEGMENT.exec(name)
        if (found === null) return []
        const file = path.join(this.path, name)
        return [{ id: Number(found[2]), file, indexFile: file.replace(/\.log$/, '_cdc.idx'), hasIndex: indexed.has(found[2]) }]
      })
      .sort((a, b) => a.id - b.id)
  }

  async #names(): Promise<readonly string[]> {
    try {
      return await readdir(this.path)
    } catch (cause) {
      throw new MillraceError('source.unprepared', `the folder ${this.path} cannot be read: ${(cause as Error).message}`, {
        fix: 'set `cdcRaw` to cdc_raw_directory of the cassandra.yaml of this machine, and let this user read and write there',
        cause,
      })
    }
  }

  /** Null: none yet, or it is just being written. */
  async index({ indexFile }: CdcSegment): Promise<SegmentIndex | null> {
    let text: string
    try {
      text = await readFile(indexFile, 'utf8')
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null
      throw error
    }
    const [until, completed] = text.split('\n')
    // written in place: a part of the number would be a lower offset, which is as true
    return until === undefined || !/^\d+$/.test(until) ? null : { until: Number(until), completed: completed?.startsWith('COMPLETED') === true }
  }

  hasIndexNow({ indexFile }: CdcSegment): boolean {
    return existsSync(indexFile)
  }

  /** The segment first: an index without one means nothing. */
  async delete(segment: CdcSegment): Promise<void> {
    await rm(segment.file, { force: true })
    await rm(segment.indexFile, { force: true })
  }

  /** Bytes of what is kept for its consumer. */
  async bytes(segments: readonly CdcSegment[]): Promise<number> {
    let sum = 0
    for (const { file } of segments)
      sum += await stat(file).then(
        ({ size }) => size,
        () => 0,
      )
    return sum
  }
}
