import { packValues, unpackClustering, unpackPartition } from './clustering-order.ts'
import type { WriteTime } from './commit-log-events.ts'
import type { CqlClient, CqlOptions } from './cql-client.ts'
import { isMultiCell } from './cql-type.ts'
import type { MappedTable } from './table-mapping.ts'

/** A row as it is in the cluster. */
export interface QueriedRow {
  /** By column of the table, the key too: bytes as the log would have them; null: no value. */
  readonly values: readonly (Buffer | null)[]
  readonly token: bigint
  /** Of the newest of its columns that can tell; 0: none can. */
  readonly writtenAt: WriteTime
  /** When to look at it again (microseconds): the first of its columns ends; 0: none does. */
  readonly due: number
}

export interface QueriedPage {
  readonly rows: readonly QueriedRow[]
  readonly next: string | null
}

/** Until one was read. */
const UNREAD_ROW_BYTES = 64 * 1024

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`

/**
 * Reads rows of a table with every value in its serialized form, so that one reader per type serves log and cluster alike: native types by the server's
 * `…AsBlob` functions, others by the driver's own encoder from what it decoded.
 */
export class RowQuery {
  readonly #client: CqlClient
  readonly #table: MappedTable
  readonly #consistency: NonNullable<CqlOptions['consistency']>
  readonly #select: string
  /** Columns that have one write time. */
  readonly #single: readonly number[]
  readonly #doing: string
  #rowBytes = UNREAD_ROW_BYTES

  constructor(client: CqlClient, table: MappedTable, consistency: NonNullable<CqlOptions['consistency']>) {
    const { keyspace, name } = table.description
    this.#client = client
    this.#table = table
    this.#consistency = consistency
    this.#doing = `to read rows of ${keyspace}.${name}`
    const values = table.columns.map((column, i) => {
      const { type } = column
      return type.kind === 'native' && type.name !== 'blob' ? `${type.name}AsBlob(${quote(column.name)}) AS c${i}` : `${quote(column.name)} AS c${i}`
    })
    const single = table.columns.flatMap((column, i) => (column.isKey || isMultiCell(column.type) ? [] : [i]))
    const timed = single.flatMap((i) => [`writetime(${quote(table.columns[i]!.name)}) AS w${i}`, `ttl(${quote(table.columns[i]!.name)}) AS t${i}`])
    this.#single = single
    this.#select = `SELECT ${[...values, `token(${this.#partition.join()}) AS at`, ...timed].join(', ')} FROM ${quote(keyspace)}.${quote(name)}`
  }

  get #partition(): readonly string[] {
    return this.#table.columns.filter(({ kind }) => kind === 'partition_key').map(({ name }) => quote(name))
  }

  /** Rows after a token, in token order. */
  async after(token: bigint | null, fetchSize: number, page: string | null): Promise<QueriedPage> {
    const where = token === null ? '' : ` WHERE token(${this.#partition.join()}) > ${token}`
    const result = await this.#client.raw(this.#doing, this.#select + where, [], { consistency: this.#consistency, fetchSize, page })
    return { rows: result.rows.map((row) => this.#row(row)), next: result.next }
  }

  /** Rows of one partition, in the order of the keys, by one SELECT; null: there is none. */
  async some(partition: Buffer, clusterings: readonly Buffer[]): Promise<readonly (QueriedRow | null)[]> {
    const { partitionColumns, columns, clustering } = this.#table
    const names = columns.filter(({ isKey }) => isKey).map(({ name }) => quote(name))
    const equal = (some: readonly string[]) => some.map((name) => `${name} = ?`)
    const [one] = clusterings
    const within = clusterings.length > 1
    const marks = (count: number, mark: string) => new Array<string>(count).fill(mark).join()
    const where = within
      ? [
          ...equal(names.slice(0, partitionColumns)),
          `(${names.slice(partitionColumns).join()}) IN (${marks(clusterings.length, `(${marks(clustering.length, '?')})`)})`,
        ]
      : equal(names)
    const values = [...unpackPartition(partition, partitionColumns), ...(within ? clusterings.flatMap(unpackClustering) : unpackClustering(one!))]
    const options = { consistency: this.#consistency }
    const found = new Map<string, QueriedRow>()
    let page: string | null = null
    do {
      const result = await this.#client.raw(this.#doing, `${this.#select} WHERE ${where.join(' AND ')}`, values, { ...options, page })
      for (const row of result.rows.map((each) => this.#row(each))) found.set(keyOf(this.#table, row.values)!.clustering.toString('latin1'), row)
      page = result.next
    } while (page !== null)
    let bytes = 0
    for (const { values: read } of found.values()) for (const value of read) bytes += value?.length ?? 0
    if (found.size > 0) this.#rowBytes = Math.max(bytes / found.size, this.#rowBytes / 2)
    return clusterings.map((key) => found.get(key.toString('latin1')) ?? null)
  }

  /** About how large a row is, by those that were read by their keys. */
  get rowBytes(): number {
    return this.#rowBytes
  }

  #row(row: Readonly<Record<string, unknown>>): QueriedRow {
    let writtenAt: WriteTime = 0
    let endsIn = 0
    for (const i of this.#single) {
      const time = row[`w${i}`] as bigint | null
      if (time !== null && time > writtenAt) writtenAt = time
      const ttl = row[`t${i}`] as number | null
      if (ttl !== null && ttl > 0 && (endsIn === 0 || ttl < endsIn)) endsIn = ttl
    }
    if (typeof writtenAt === 'bigint' && writtenAt <= BigInt(Number.MAX_SAFE_INTEGER)) writtenAt = Number(writtenAt)
    const due = endsIn === 0 ? 0 : (Math.floor(Date.now() / 1000) + endsIn) * 1_000_000
    return { values: this.#table.columns.map((_, i) => row[`c${i}`] as Buffer | null), token: row.at as bigint, writtenAt, due }
  }
}

/** The key of a row; null: the static columns of a partition that has no rows. */
export function keyOf(table: MappedTable, values: readonly (Buffer | null)[]): { readonly partition: Buffer; readonly clustering: Buffer } | null {
  const key = values.slice(0, table.partitionColumns + table.clustering.length)
  if (key.some((value) => value === null)) return null
  return { partition: packPartition(key.slice(0, table.partitionColumns) as Buffer[]), clustering: packValues(key.slice(table.partitionColumns)) }
}

/** As org.apache.cassandra.db.marshal.CompositeType. */
function packPartition(components: readonly Buffer[]): Buffer {
  if (components.length === 1) return components[0]!
  return Buffer.concat(
    components.flatMap((value) => {
      const length = Buffer.alloc(2)
      length.writeUInt16BE(value.length)
      return [length, value, Buffer.alloc(1)]
    }),
  )
}
