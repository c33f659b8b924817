import { createHash } from 'node:crypto'
import { type Column, MillraceError, type TableSchema } from '../../core/plugin.ts'
import { type ColumnDefinition, typeText } from './column-definition.ts'
import { date, datetime, time, timestamp } from './type-datetime.ts'
import { bigint, bit, decimal, double, float, signedInteger, unsignedBigint, unsignedInt, unsignedInteger, year } from './type-number.ts'
import type { TypeReader, WireReader } from './type-reader.ts'
import { binary, decoderOf, enumeration, fixedBinary, json, mariadbInet4, mariadbInet6, mariadbUuid, set, text, vector } from './type-text.ts'

export type { WireReader } from './type-reader.ts'

export interface TypeMappingOptions {
  /** `text`: values that their Avro type cannot hold (zero dates) travel as text in a branch of their own. */
  readonly unrepresentable: 'error' | 'text'
}

/** A table as it is defined: where its columns come from does not show. */
export interface TableDefinition {
  readonly namespace: string
  readonly name: string
  readonly columns: readonly ColumnDefinition[]
  /** Indexes into `columns`, rising. */
  readonly key: readonly number[]
}

export interface MappedTable {
  readonly definition: TableDefinition
  readonly table: TableSchema
  /** Aligned with `table.columns`. */
  readonly readers: readonly { readonly binlog: WireReader; readonly result: WireReader }[]
}

/** @throws source.schema_unsupported for a type or a character set that is not known */
export function mapTable(definition: TableDefinition, options: TypeMappingOptions): MappedTable {
  const { namespace, name, columns, key } = definition
  const readers = columns.map((column) => typeReader(column))
  const ids = columnIds(columns.map((column) => column.name))
  return {
    definition,
    readers,
    table: {
      namespace,
      name,
      key,
      columns: columns.map(
        (column, i): Column => ({
          name: column.name,
          id: ids[i]!,
          type: readers[i]!.type,
          sourceType: typeText(column),
          nullable: column.nullable && !key.includes(i),
          mayBeUnchanged: false,
          maybeSpecial: options.unrepresentable === 'text' && readers[i]!.canBeSpecial && !key.includes(i),
        }),
      ),
    },
  }
}

/**
 * The server gives columns no identity that survives, so the name is it: a renamed column is another one. Numbers of 30 bits from the name; the rare
 * second name of a number is hashed again.
 */
function columnIds(names: readonly string[]): readonly number[] {
  const taken = new Set<number>()
  return names.map((name) => {
    for (let round = 0; ; round++) {
      const id = (createHash('sha256').update(`${round}\0${name}`).digest().readUInt32BE(0) & 0x3fff_ffff) + 1
      if (taken.has(id)) continue
      taken.add(id)
      return id
    }
  })
}

const FIXED: Readonly<Record<string, TypeReader>> = {
  float,
  double,
  year,
  date,
  json,
  vector,
  varbinary: binary,
  tinyblob: binary,
  blob: binary,
  mediumblob: binary,
  longblob: binary,
  geometry: binary,
  point: binary,
  linestring: binary,
  polygon: binary,
  multipoint: binary,
  multilinestring: binary,
  multipolygon: binary,
  geometrycollection: binary,
  uuid: mariadbUuid,
  inet4: mariadbInet4,
  inet6: mariadbInet6,
}

function typeReader(column: ColumnDefinition): TypeReader {
  const { base, args, unsigned } = column
  const fixed = FIXED[base]
  if (fixed !== undefined) return fixed
  switch (base) {
    case 'tinyint':
    case 'smallint':
    case 'mediumint':
      return unsigned ? unsignedInteger : signedInteger
    case 'int':
      return unsigned ? unsignedInt : signedInteger
    case 'bigint':
      return unsigned ? unsignedBigint : bigint
    case 'decimal':
      return decimal(args[0]!, args[1] ?? 0)
    case 'bit':
      return bit(args[0]!)
    case 'datetime':
      return datetime(args[0]!)
    case 'timestamp':
      return timestamp(args[0]!)
    case 'time':
      return time(args[0]!)
    case 'binary':
      return fixedBinary(args[0]!)
    default:
      return characterReader(column)
  }
}

function characterReader(column: ColumnDefinition): TypeReader {
  const { base, charset, values } = column
  const decode = charset === null ? undefined : decoderOf(charset)
  if (charset !== null && decode !== undefined) {
    switch (base) {
      case 'char':
      case 'varchar':
      case 'tinytext':
      case 'text':
      case 'mediumtext':
      case 'longtext':
        return text(charset, decode)
      case 'enum':
        return enumeration(values, charset, decode)
      case 'set':
        return set(values, charset, decode)
    }
  }
  throw new MillraceError('source.schema_unsupported', `column ${column.name}: ${typeText(column)} is not known to Millrace`, {
    fix: 'leave the table out in `tables` of the source, or convert the column to a type and character set of the list in connectors/mysql/README.md',
  })
}
