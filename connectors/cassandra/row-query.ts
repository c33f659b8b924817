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
  /** Seconds until the first of its columns ends; 0: none does. */
  readonly endsIn: number
}

export interface QueriedPage {
  readonly rows: readonly QueriedRow[]
  readonly next: string | null
}

const quote = (name: string) => `"${name.replaceAll('"', '""')}"`

/**
 * Reads rows of a table with every value in its serialized form, so that one reader per type serves log and cluster alike: native types by the server's
 * `…AsBlob` functions, others by the bytes that the driver had.
 */
export class RowQuery {
  readonly #client: CqlClient
  readonly #table: MappedTable
  readonly #consistency: NonNullable<CqlOptions['consistency']>
  readonly #select: string
  /** Columns that have one write time. */
  readonly #single: readonly number[]
  readonly #doing: string

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

  /** Null: there is none. */
  async one(partition: Buffer, clustering: Buffer): Promise<QueriedRow | null> {
    const { partitionColumns, columns } = this.#table
    const key = columns.filter(({ isKey }) => isKey).map(({ name }) => `${quote(name)} = ?`)
    const values = [...unpackPartition(partition, partitionColumns), ...unpackClustering(clustering)]
    const { rows } = await this.#client.raw(this.#doing, `${this.#select} WHERE ${key.join(' AND ')}`, values, { consistency: this.#consistency })
    return rows.length === 0 ? null : this.#row(rows[0]!)
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
    return { values: this.#table.columns.map((_, i) => row[`c${i}`] as Buffer | null), token: row.at as bigint, writtenAt, endsIn }
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
