import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { FileSet } from '../../../../connectors/files/file-set.ts'
import { filesConfig } from '../../../../connectors/files/files-config.ts'
import { FilesSnapshotReader } from '../../../../connectors/files/snapshot-reader.ts'
import { TableShapes } from '../../../../connectors/files/table-shapes.ts'
import type { ChangeWriter, Json, TableSchema } from '../../../../core/plugin.ts'

const context = { node: 'logs', logger: pino({ level: 'silent' }) }
let directory: string
beforeEach(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'millrace-files-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

const at = (name: string) => path.join(directory, name)
const line = (id: number, text: string) => `${JSON.stringify({ id, text })}\n`

/** Reads `app` in chunks of one row. `meanwhile` is called between the first and the second, and says what was streamed. @returns texts by id, in order */
async function read(key: readonly string[] | undefined, meanwhile: () => void): Promise<readonly string[]> {
  const config = filesConfig.parse({
    directory,
    tables: [{ files: 'app*.log', table: 'app', format: 'ndjson', columns: { id: 'int64', text: 'string' }, ...(key && { key }) }],
  })
  await using files = new FileSet(config, context)
  await files.begin()
  const shapes = new TableShapes(config, {})
  const reader = new FilesSnapshotReader(files, shapes, context)
  await shapes.reader(files.files[0]!, files.rules.get('app')!)
  const table: TableSchema = shapes.schema('app', files.rules.get('app')!)!
  const column = (name: string) => table.columns.findIndex((one) => one.name === name)
  const seen: string[] = []
  let cursor: Json | null = null
  for (let chunks = 0; chunks === 0 || cursor !== null; chunks++) {
    if (chunks === 1) {
      meanwhile()
      await files.scan()
      for (let piece = await files.next('app'); piece !== null; piece = await files.next('app')) piece.file.advance(piece)
    }
    const chunk = await reader.read(table, cursor, { maxRows: 1, maxBytes: 1e6 }, () => {}, new AbortController().signal)
    let row: unknown[] = []
    const writer = { value: (value: unknown) => row.push(value) } as unknown as ChangeWriter
    chunk.write(
      writer,
      () => {
        row = []
      },
      () => seen.push(`${row[column('id')]} ${row[column('text')]}`),
    )
    cursor = chunk.next
  }
  return seen
}

const grow = () => {
  appendFileSync(at('app.log'), line(2, 'new'))
  writeFileSync(at('app-2.log'), line(3, 'newest'))
}

test('a line of a key that comes again is not left behind an older one, whichever file has it', async () => {
  writeFileSync(at('app.log'), line(1, 'old') + line(2, 'old') + line(3, 'old'))
  expect(await read(['id'], grow)).toEqual(['1 old', '2 old', '3 old', '2 new', '3 newest'])
})

test('lines that are their own keys are read up to where the reading began', async () => {
  writeFileSync(at('app.log'), line(1, 'old') + line(2, 'old') + line(3, 'old'))
  expect(await read(undefined, grow)).toEqual(['1 old', '2 old', '3 old'])
})
