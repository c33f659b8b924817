import { appendFileSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { type Item, type ProvisionedSource, sourceContract } from 'millrace/testing'
import plugin from './index.ts'

const EXTREMES: readonly Item[] = [
  { id: 1, name: '', quantity: 2147483647, body: 'ünïcödé 🜚' },
  { id: 2, name: 'one\ntwo', quantity: -2147483648, body: null },
  { id: Number.MAX_SAFE_INTEGER, name: null, quantity: null, body: 'x'.repeat(100_000) },
]

/** A journal of its own for each test, and how the suite changes it: as the program would that writes it. */
async function provision(): Promise<ProvisionedSource> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'journal-'))
  const file = path.join(dir, 'journal.ndjson')
  writeFileSync(file, '')
  const rows = new Map<string, Item>()
  const append = (changes: readonly unknown[]) => appendFileSync(file, `${JSON.stringify(changes)}\n`)
  return {
    plugin,
    settings: { file },
    namespace: 'journal',
    /** A table with the extremes of each column. */
    types: {
      rows: EXTREMES.map(({ id, name, quantity, body }) => [BigInt(id), name, quantity, body]),
      create: async (table) => append([{ table, op: 't' }]),
      load: async (table) => append(EXTREMES.map((row) => ({ table, op: 'c', row }))),
    },
    wrong: [{ what: 'no journal', settings: { file: path.join(dir, 'nowhere') }, code: 'source.unprepared' }],
    createTable: async (table) => append([{ table, op: 't' }]),
    async transact(writes) {
      append(
        writes.map((write) => {
          if (write.op === 'truncate') throw new Error('not among the capabilities below')
          const { table } = write
          const id = write.op === 'insert' ? write.row.id : write.id
          const key = `${table}/${id}`
          if (write.op === 'delete') return { table, op: 'd', row: { id } }
          const row = write.op === 'insert' ? write.row : { ...rows.get(key)!, ...write.set }
          rows.set(key, row)
          return { table, op: write.op === 'insert' ? 'c' : 'u', row }
        }),
      )
    },
    /** There is no server. */
    restart: async () => {},
    loseHistory: async () => truncateSync(file, 0),
    dispose: async () => rmSync(dir, { recursive: true }),
  }
}

sourceContract('plugin-name', provision, { transactions: true, keepsNothing: true, fixedColumns: true })
