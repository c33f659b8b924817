/** Recordings that are kept: segments without their unwritten rest, and of the schema only the tables that are in them. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import type { Recording } from './commit-log.ts'

interface Kept {
  readonly schema: Recording['schema']
  readonly segments: readonly { readonly name: string; readonly index: string; readonly base64: string; readonly mutations: readonly string[] }[]
}

export interface GoldenRecording extends Recording, Disposable {}

/** Only segments with something of the keyspace. */
export function writeGolden(file: string, { schema, segments }: Recording, keyspace: string): void {
  const idOf = ([, row]: Recording['schema'][number]) => String(row.id ?? '')
  const wanted = new Set(schema.filter(([table, row]) => table === 'tables' && row.keyspace_name === keyspace).map(idOf))
  const kept = segments.filter(({ mutations }) => mutations.some((line) => [...wanted].some((id) => line.includes(id))))
  const lines = kept.flatMap(({ mutations }) => mutations).join('\n')
  const used = new Set(
    schema.filter((entry) => (entry[0] === 'tables' || entry[0] === 'views') && lines.includes(idOf(entry))).map(([, row]) => tableName(row)),
  )
  const golden: Kept = {
    schema: schema.filter(([table, row]) => (table === 'types' ? row.keyspace_name === keyspace : used.has(tableName(row)))),
    segments: kept.map(({ file: segment, index, mutations }) => ({
      name: path.basename(segment),
      index,
      base64: withoutZeros(readFileSync(segment)).toString('base64'),
      mutations,
    })),
  }
  writeFileSync(file, gzipSync(JSON.stringify(golden), { level: 9 }))
}

/** Segments as files in a folder that goes away with it. */
export function readGolden(file: string): GoldenRecording {
  const { schema, segments } = JSON.parse(gunzipSync(readFileSync(file)).toString()) as Kept
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-golden-'))
  return {
    schema,
    segments: segments.map(({ name, index, base64, mutations }) => {
      writeFileSync(path.join(dir, name), Buffer.from(base64, 'base64'))
      return { file: path.join(dir, name), index, mutations }
    }),
    [Symbol.dispose]: () => rmSync(dir, { recursive: true, force: true }),
  }
}

function tableName(row: Readonly<Record<string, unknown>>): string {
  return `${row.keyspace_name}.${row.table_name ?? row.view_name}`
}

function withoutZeros(bytes: Buffer): Buffer {
  let end = bytes.length
  while (end > 0 && bytes[end - 1] === 0) end--
  // a marker that says the end
  return bytes.subarray(0, Math.min(bytes.length, end + 16))
}
