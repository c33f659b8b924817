import { appendFileSync, copyFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FileSet } from '../../../../connectors/files/file-set.ts'
import files from '../../../../connectors/files/index.ts'
import type { CaptureOutput, PluginContext, SourceConnector, SourceOffset } from '../../../../core/plugin.ts'
import { until } from '../../../../testing/source/source-run.ts'

const context: PluginContext = { mesh: 'm', node: 'logs', dataDir: os.tmpdir(), logger: pino({ level: 'silent' }), metric: () => {} }
let directory: string
let run: Run | null

beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'millrace-rotation-'))
  run = null
})
afterEach(async () => {
  await run?.stop()
  rmSync(directory, { recursive: true, force: true })
})

const at = (name: string) => path.join(directory, name)
const lines = (...ids: readonly number[]) => ids.map((id) => `{"id":${id},"text":"${'x'.repeat(20)} ${id}"}\n`).join('')
const settings = () => files.config.parse({ directory, pollMs: 10, tables: [{ files: '{table}.log*', format: 'ndjson' }] })

/** A source that runs, with what it gives written down. */
class Run {
  readonly ids: number[] = []
  readonly keys = new Set<string>()
  readonly commits: bigint[] = []
  readonly parked: unknown[] = []
  skipped = 0
  offset: SourceOffset
  /** The last one that says what is captured next. */
  planned: SourceOffset | null = null
  failure: unknown = null
  readonly #connector: SourceConnector
  readonly #abort = new AbortController()
  readonly #done: Promise<void>

  constructor(connector: SourceConnector, from: SourceOffset) {
    this.#connector = connector
    this.offset = from
    this.#done = this.#drive(from).catch((error: unknown) => {
      this.failure = error
    })
  }

  static async open(resume: SourceOffset | null): Promise<Run> {
    const connector = await files.open(settings(), context, resume)
    run = new Run(connector, resume ?? connector.start)
    return run
  }

  async #drive(from: SourceOffset): Promise<void> {
    let row: unknown[] = []
    const writer = {
      begin: () => true,
      after: () => (row = []),
      value: (value: unknown) => row.push(value),
      end: () => {
        this.keys.add(String(row[0]))
        this.ids.push(Number(row[2]))
      },
    }
    const output = {
      chunks: { size: 0, onWaiting: null, emit: () => null },
      get tablesVersion() {
        return 0
      },
      table: async () => (this.parked.length > 0 ? null : writer),
      transaction: ({ commit }: { commit: bigint }) => this.commits.push(commit),
      park: (_: unknown, error: unknown) => this.parked.push(error),
      skip: () => this.skipped++,
    } as unknown as CaptureOutput
    for await (const offset of this.#connector.changes(from, output, this.#abort.signal)) {
      this.offset = JSON.parse(JSON.stringify(offset)) as SourceOffset
      if ((this.offset as { next: unknown }).next !== null) this.planned = this.offset
    }
  }

  until(condition: () => boolean): Promise<void> {
    return until('lines are captured', () => {
      if (this.failure !== null) throw this.failure
      return condition()
    })
  }

  has(...ids: readonly number[]): Promise<void> {
    return this.until(() => this.ids.length >= ids.length).then(() => expect(this.ids).toEqual(ids))
  }

  async stop(): Promise<SourceOffset> {
    this.#abort.abort()
    await this.#done
    await this.#connector[Symbol.asyncDispose]()
    return this.offset
  }
}

test('lines count once they are complete, in the file that is renamed as in the next one', async () => {
  writeFileSync(at('app.log'), lines(1))
  const one = await Run.open(null)
  appendFileSync(at('app.log'), lines(2) + lines(3).slice(0, 10))
  await one.has(2)
  appendFileSync(at('app.log'), lines(3).slice(10))
  await one.has(2, 3)
  renameSync(at('app.log'), at('app.log.1'))
  appendFileSync(at('app.log.1'), lines(4))
  writeFileSync(at('app.log'), lines(5))
  await one.has(2, 3, 4, 5)
  const offset = await one.stop()
  // while nobody looks
  renameSync(at('app.log.1'), at('app.log.2'))
  renameSync(at('app.log'), at('app.log.1'))
  appendFileSync(at('app.log.1'), lines(6))
  writeFileSync(at('app.log'), lines(7))
  const two = await Run.open(offset)
  await two.has(6, 7)
  // a row's key is its file's, whatever the name
  expect([...two.keys].filter((key) => one.keys.has(key))).toHaveLength(1)
  expect([...one.commits, ...two.commits]).toEqual([...one.commits, ...two.commits].sort((a, b) => Number(a - b)))
})

test('copytruncate: the copy is no new file, and the emptied one is', async () => {
  writeFileSync(at('app.log'), '')
  const one = await Run.open(null)
  appendFileSync(at('app.log'), lines(1, 2))
  await one.has(1, 2)
  copyFileSync(at('app.log'), at('app.log.1'))
  appendFileSync(at('app.log'), lines(3))
  await one.has(1, 2, 3)
  rmSync(at('app.log.1'))
  copyFileSync(at('app.log'), at('app.log.1'))
  truncateSync(at('app.log'))
  appendFileSync(at('app.log'), lines(4))
  await one.has(1, 2, 3, 4)
  const offset = await one.stop()
  appendFileSync(at('app.log'), lines(5))
  copyFileSync(at('app.log'), at('app.log.2'))
  truncateSync(at('app.log'))
  appendFileSync(at('app.log'), lines(6))
  const two = await Run.open(offset)
  await two.has(5, 6)
})

test('a file that was emptied and written to is noticed, also when it is read before the folder is looked at', async () => {
  writeFileSync(at('app.log'), lines(1, 2))
  await using set = new FileSet(settings(), context)
  await set.begin()
  const of = () => set.files.map(({ at, size }) => [at, size])
  const length = lines(1).length
  copyFileSync(at('app.log'), at('app.log.1'))
  truncateSync(at('app.log'))
  appendFileSync(at('app.log'), lines(3))
  expect(await set.next('app')).toBeNull()
  await set.scan()
  expect(of()).toEqual([
    [2 * length, 2 * length],
    [0, length],
  ])
})

test('a file that was emptied without a copy is told, while it runs and after', async () => {
  writeFileSync(at('app.log'), '')
  const one = await Run.open(null)
  appendFileSync(at('app.log'), lines(1, 2))
  await one.has(1, 2)
  const lost = { code: 'source.history_lost', fix: expect.stringContaining('--resnapshot logs') }
  truncateSync(at('app.log'))
  await expect(one.until(() => false)).rejects.toMatchObject(lost)
  const offset = await one.stop()
  // as long as before, and other lines
  writeFileSync(at('app.log'), lines(8, 9))
  await expect(files.open(settings(), context, offset)).rejects.toMatchObject(lost)
  // killed when its lines were in the log, and what came after them was not durable
  await expect(files.open(settings(), context, one.planned)).rejects.toMatchObject(lost)
  writeFileSync(at('app.log'), lines(1, 2))
  const again = await Run.open(one.planned)
  await again.has(1, 2)
})

test('lines that were captured last before a kill are found in the copy, when the file was emptied and has others', async () => {
  writeFileSync(at('app.log'), '')
  const one = await Run.open(null)
  appendFileSync(at('app.log'), lines(1, 2))
  await one.has(1, 2)
  await one.stop()
  copyFileSync(at('app.log'), at('app.log.1'))
  truncateSync(at('app.log'))
  appendFileSync(at('app.log'), lines(8, 9))
  const again = await Run.open(one.planned)
  await again.has(1, 2, 8, 9)
})

test('a deleted file is read to its end, and one that had more while nobody looked is told', async () => {
  writeFileSync(at('app.log'), '')
  const one = await Run.open(null)
  appendFileSync(at('app.log'), lines(1))
  await one.has(1)
  appendFileSync(at('app.log'), lines(2))
  rmSync(at('app.log'))
  writeFileSync(at('app.log'), lines(3))
  await one.has(1, 2, 3)
  const behind = structuredClone(await one.stop()) as { files: { behind?: true }[] }
  behind.files.at(-1)!.behind = true
  rmSync(at('app.log'))
  await expect(files.open(settings(), context, behind as unknown as SourceOffset)).rejects.toMatchObject({ code: 'source.history_lost' })
})

test('a line that is no row parks its table, with its place; a compressed file is not read', async () => {
  writeFileSync(at('app.log'), '')
  const one = await Run.open(null)
  writeFileSync(at('app.log.1.gz'), lines(9))
  appendFileSync(at('app.log'), lines(1))
  await one.has(1)
  appendFileSync(at('app.log'), `{"id":2,"other":1}\n${lines(3)}`)
  await one.until(() => one.skipped === 2)
  expect(one.ids).toEqual([1])
  expect(one.parked).toMatchObject([
    { code: 'source.schema_unsupported', message: expect.stringMatching(/app\.log at byte 41 .*no column "other"/), fix: expect.stringContaining('columns') },
  ])
})
