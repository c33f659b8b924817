import { hashHigh, hashLow } from '../event/row-hash.ts'
import type { TableSchema, Tuple } from '../event/table-schema.ts'
import { type Cut, KeyHasher, keyText, LeftOut, offsetsOf, Replay, type ReplayOptions, RowHasher } from './log-state.ts'
import { RowTable, TOO_LARGE } from './row-table.ts'

export interface KeyDifference {
  /** `id=17`, or the whole row of a table without a key. */
  readonly key: string
  readonly what: 'missing' | 'too many' | 'other values'
}

/**
 * The first keys whose rows are not the same in other rows and in the log, in no particular order: `missing` says that the other rows lack what the log has.
 * @param read calls `each` with all other rows and returns what of the log they should equal; called once for each pass, and once to name what only it has
 */
export async function differingKeys(
  options: Omit<ReplayOptions, 'cut'>,
  read: (each: (row: Tuple) => void) => Promise<Cut>,
  most: number,
): Promise<readonly KeyDifference[]> {
  const { log, topic, table } = options
  const memoryBytes = options.memoryBytes / 2
  const apart = new Set(table.columns.flatMap(({ mayBeUnchanged }, i) => (mayBeUnchanged ? [i] : [])))
  const keys = new KeyHasher(table)
  const hasher = new RowHasher(table)
  for (let parts = Math.max(1, Math.ceil(RowTable.bytes(1 + apart.size, options.rows) / memoryBytes)); ; ) {
    const found = new Map<bigint, KeyDifference['what']>()
    const names = new Map<bigint, string>()
    const note = (high: number, low: number, what: KeyDifference['what']) => {
      if (found.size < most) found.set(hashOf(high, low), what)
    }
    try {
      let replay: Replay | null = null
      for (let part = 0; part < parts && found.size < most; part++) {
        const others = new RowTable(1, memoryBytes, options.rows / parts)
        const cut = await read((row) => {
          keys.hashRow(row)
          if (hashLow % parts !== part) return
          const at = others.put(hashHigh, hashLow, START)
          hasher.hash(row)
          const { high, low } = hasher.total()
          others.setSum(at, 0, high, low)
        })
        const inLog: Replay = new Replay({ ...options, memoryBytes, cut }, await offsetsOf(log, topic, cut), [...apart])
        const state = await inLog.state(part, parts)
        state.each((at, high, low) => {
          const other = others.find(high, low)
          const sum = inLog.rowSum(state, at)
          if (other < 0) note(high, low, 'missing')
          else if (others.sumHigh(other, 0) !== sum.high || others.sumLow(other, 0) !== sum.low) note(high, low, 'other values')
          others.delete(high, low)
        })
        others.each((_, high, low) => note(high, low, 'too many'))
        replay = inLog
      }
      await replay?.changes((change, view, record) => {
        if (change.kind === 'truncate') return
        keys.hash(change, view, record)
        const hash = hashOf(hashHigh, hashLow)
        if (found.has(hash) && !names.has(hash)) names.set(hash, nameOf(change.table, change.key ?? change.after ?? change.before))
      })
      if (names.size < found.size) {
        await read((row) => {
          keys.hashRow(row)
          const hash = hashOf(hashHigh, hashLow)
          const { key } = table
          if (found.has(hash) && !names.has(hash)) names.set(hash, nameOf(table, key.length === 0 ? row : key.map((i) => row[i]!)))
        })
      }
      return [...found].map(([hash, what]) => ({ key: names.get(hash) ?? 'gone meanwhile', what }))
    } catch (error) {
      if (error === TOO_LARGE) parts *= 2
      else if (error instanceof LeftOut) apart.add(error.column)
      else throw error
    }
  }
}

const START = { commit: 0n, ordinal: 0 }
const hashOf = (high: number, low: number) => (BigInt(high) << 32n) | BigInt(low === 0 && high === 0 ? 1 : low)

function nameOf({ key, columns }: TableSchema, values: Tuple | null): string {
  const named = key.length === 0 ? columns : key.map((i) => columns[i]!)
  return named
    .map(({ name, type }, i) => {
      const value = values![i]!
      const exponent = type.kind === 'decimal' && type.scale > 0 ? `e-${type.scale}` : ''
      return `${name}=${typeof value === 'bigint' ? `${value}${exponent}` : keyText([value]).slice(1, -1)}`
    })
    .join(', ')
}
