import { appendFileSync, copyFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import files from '../../connectors/files/index.ts'
import { Special, type Value } from '../../core/plugin.ts'
import { type Item, type ProvisionedSource, type SourceCapabilities, sourceContract, type TypedTable } from '../../testing/source.contract.ts'

type Format = 'ndjson' | 'csv'

const COLUMNS = { id: 'int64', name: 'string', quantity: 'int32', body: 'string' }

/** Column, type, and pairs of what a line says and what must come; NDJSON and CSV write values alike, but for their quotes. */
const TYPES: readonly (readonly [type: string, ...values: (readonly [string | null, Value])[]])[] = [
  ['boolean', ['true', true], ['false', false], [null, null]],
  ['int32', ['2147483647', 2147483647], ['-2147483648', -2147483648], ['2147483648', new Special('2147483648')]],
  ['int64', ['9223372036854775807', 2n ** 63n - 1n], ['-9223372036854775808', -(2n ** 63n)], ['9007199254740993', 9007199254740993n]],
  ['float64', ['5e-324', 5e-324], ['-0.10', -0.1], ['0.12345678901234567890', new Special('0.12345678901234567890')]],
  ['decimal(38,10)', ['9999999999999999999999999999.9999999999', 10n ** 38n - 1n], ['-0.0000000001', -1n], ['1.50000000000', 15_000_000_000n]],
  ['string', ['"ünïcödé 🜚"', 'ünïcödé 🜚'], ['""', ''], [null, null]],
  ['date', ['"0001-01-01"', -719_162], ['"9999-12-31"', 2_932_896], ['"2023-02-30"', new Special('2023-02-30')]],
  [
    'timestamp',
    ['"1969-12-31 23:59:59.999999"', -1n],
    ['"1970-01-01T00:00:00"', 0n],
    ['"1970-01-01T00:00:00.0000001"', new Special('1970-01-01T00:00:00.0000001')],
  ],
  ['timestamptz', ['"1970-01-01T02:00:00+02:00"', 0n], ['"1970-01-01T00:00:00.000001Z"', 1n], [null, null]],
]

function provision(format: Format): ProvisionedSource {
  const directory = mkdtempSync(path.join(os.tmpdir(), 'millrace-files-'))
  const file = (table: string) => path.join(directory, `${table}.${format}`)
  const header = format === 'csv' && `${Object.keys(COLUMNS).join()}\n`
  const wider = new Set<string>()
  const tables: string[] = []
  let rotations = 0
  const csv = (text: string) => `"${text.replaceAll('"', '""')}"`
  const line = (table: string, row: Item) => {
    if (format === 'ndjson') return `${JSON.stringify(row)}\n`
    const { id, name, quantity, body, extra = null } = row
    const cells = [id, name === null ? '' : csv(name), quantity ?? '', body === null ? '' : csv(body), ...(wider.has(table) ? [extra ?? ''] : [])]
    return `${cells.join()}\n`
  }
  const typeNames = Object.fromEntries([['id', 'int32'], ...TYPES.map(([type], i) => [`c${i}`, type])]) as Record<string, string>
  const types: TypedTable = {
    rows: [0, 1, 2].map((n) => [n, ...TYPES.map(([, ...values]) => values[n]![1])]),
    create: async (table) => writeFileSync(path.join(directory, `${table}.typed.${format}`), format === 'csv' ? `${Object.keys(typeNames).join()}\n` : ''),
    load: async (table) => {
      for (const n of [0, 1, 2]) {
        const cells = TYPES.map(([, ...values]) => values[n]![0])
        const text = format === 'csv' ? [n, ...cells.map((cell) => cell ?? '')].join() : `{"id":${n},${cells.map((cell, i) => `"c${i}":${cell}`).join()}}`
        appendFileSync(path.join(directory, `${table}.typed.${format}`), `${text}\n`)
      }
    },
  }
  const rule = (pattern: string, columns: Readonly<Record<string, string>>) => ({ files: pattern, format, columns, key: ['id'] })
  const settings = {
    directory,
    tables: [rule(`{table}.typed.${format}`, typeNames), rule(`{table}.${format}*`, format === 'csv' ? { ...COLUMNS, extra: 'int32' } : COLUMNS)],
    pollMs: 20,
    unrepresentable: 'text',
  }
  return {
    plugin: files,
    settings,
    namespace: 'files',
    types,
    wrong: [{ what: 'no folder', settings: { ...settings, directory: path.join(directory, 'nowhere') }, code: 'source.unprepared' }],
    async createTable(table) {
      tables.push(table)
      writeFileSync(file(table), header || '')
    },
    /** The program that writes is, and rotates: by renaming, or by copying and emptying. */
    async restart() {
      for (const table of tables) {
        const old = `${file(table)}.${++rotations}`
        if (format === 'csv') {
          copyFileSync(file(table), old)
          truncateSync(file(table))
        } else renameSync(file(table), old)
        appendFileSync(file(table), header || '')
      }
    },
    async transact(writes) {
      // one write for each table, as from a program that buffers
      const byTable = Map.groupBy(writes, ({ table }) => table)
      for (const [table, own] of byTable) appendFileSync(file(table), own.map((write) => (write.op === 'insert' ? line(table, write.row) : '')).join(''))
    },
    ...(format === 'csv' && {
      /** The next file has a header with one name more. */
      async addColumn(table: string) {
        renameSync(file(table), `${file(table)}.${++rotations}`)
        wider.add(table)
        writeFileSync(file(table), `${Object.keys(COLUMNS).join()},extra\n`)
      },
    }),
    async loseHistory() {
      truncateSync(file('items'))
    },
    async dispose() {
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

const can: SourceCapabilities = { appendOnly: true, keepsNothing: true }
for (const format of ['ndjson', 'csv'] as const)
  sourceContract(`files, ${format}`, async () => provision(format), { ...can, fixedColumns: format === 'ndjson' })
