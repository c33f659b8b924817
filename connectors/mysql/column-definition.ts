import { MillraceError } from '../../core/plugin.ts'
import { realType, TYPE, type WireColumn } from './table-map.ts'
import { decoderOf } from './type-text.ts'

/** A column as its definition has it, whether that came from information_schema or from a table map. */
export interface ColumnDefinition {
  readonly name: string
  /** `int`, `varchar`, `enum`: the type without its arguments. */
  readonly base: string
  /** `varchar(40)`: 40; `decimal(10,2)`: 10, 2; `datetime(6)`: 6. */
  readonly args: readonly number[]
  readonly unsigned: boolean
  /** Of an enum or set. */
  readonly values: readonly string[]
  /** Of character columns; `binary` for those of bytes; null for other types. */
  readonly charset: string | null
  readonly nullable: boolean
  /** Computed from other columns: rows that come without it may have another value than before. */
  readonly generated: boolean
}

export interface Charsets {
  /** By id of the collation. */
  readonly ofCollation: ReadonlyMap<number, string>
  /** Bytes of a character at most. */
  readonly widths: ReadonlyMap<string, number>
}

const INTEGERS = new Set(['tinyint', 'smallint', 'mediumint', 'int', 'bigint'])
/** Types whose arguments say nothing about the values: display widths, and hints about rounding. */
const PLAIN = new Set([...INTEGERS, 'float', 'double', 'year', 'tinyblob', 'blob', 'mediumblob', 'longblob', 'tinytext', 'text', 'mediumtext', 'longtext'])
const SYNONYMS: Readonly<Record<string, string>> = { integer: 'int', geomcollection: 'geometrycollection', 'double precision': 'double', numeric: 'decimal' }
const DEFAULT_ARGS: Readonly<Record<string, readonly number[]>> = {
  decimal: [10, 0],
  bit: [1],
  char: [1],
  binary: [1],
  datetime: [0],
  timestamp: [0],
  time: [0],
}

/** @param type as `COLUMN_TYPE` of information_schema has it: `int(10) unsigned`, `enum('a','b')` */
export function defineColumn(name: string, type: string, charset: string | null, nullable: boolean, generated = false): ColumnDefinition {
  const match = /^([a-z0-9_ ]+?)\s*(?:\((.*)\))?\s*((?:unsigned|zerofill|signed|\/\*.*\*\/|\s)*)$/is.exec(type.trim())
  const [, first = type, inner = '', rest = ''] = match ?? []
  const word = first.trim().toLowerCase()
  const [plain, ...attributes] = word.split(/\s+/)
  const base = SYNONYMS[word] ?? SYNONYMS[plain!] ?? plain!
  const listed = base === 'enum' || base === 'set'
  const args = PLAIN.has(base) || listed ? [] : inner === '' ? (DEFAULT_ARGS[base] ?? []) : inner.split(',').map(Number)
  const unsigned = [...attributes, ...rest.toLowerCase().split(/\s+/)].some((attribute) => attribute === 'unsigned' || attribute === 'zerofill')
  const values = listed ? members(inner) : []
  return { name, base, args, unsigned: unsigned && base !== 'year', values, charset: charsetOf(base, charset), nullable, generated }
}

const BYTES = new Set(['binary', 'varbinary', 'tinyblob', 'blob', 'mediumblob', 'longblob'])
const TEXTS = new Set(['char', 'varchar', 'tinytext', 'text', 'mediumtext', 'longtext', 'enum', 'set'])

function charsetOf(base: string, charset: string | null): string | null {
  if (BYTES.has(base)) return 'binary'
  return TEXTS.has(base) ? charset : null
}

/** `'a','it''s'` */
function members(list: string): readonly string[] {
  return [...list.matchAll(/'((?:[^'\\]|''|\\.)*)'/gs)].map(([, text]) => text!.replaceAll("''", "'").replace(/\\(.)/gs, '$1'))
}

/** The type in one spelling, which both origins give. */
export function typeText(column: ColumnDefinition): string {
  const { base, args, values, unsigned, charset } = column
  const listed = values.map((value) => `'${value.replaceAll("'", "''")}'`)
  const inner = listed.length > 0 ? listed.join(',') : args.join(',')
  const bare = inner === '' || ((base === 'datetime' || base === 'timestamp' || base === 'time') && args[0] === 0)
  const of = charset === null || charset === 'utf8mb4' || charset === 'binary' ? '' : ` character set ${charset}`
  return `${base}${bare ? '' : `(${inner})`}${unsigned ? ' unsigned' : ''}${of}`
}

const SIMPLE: Readonly<Record<number, string>> = {
  [TYPE.tiny]: 'tinyint',
  [TYPE.short]: 'smallint',
  [TYPE.int24]: 'mediumint',
  [TYPE.long]: 'int',
  [TYPE.longlong]: 'bigint',
  [TYPE.float]: 'float',
  [TYPE.double]: 'double',
  [TYPE.year]: 'year',
  [TYPE.date]: 'date',
  [TYPE.newdate]: 'date',
  [TYPE.json]: 'json',
}
const GEOMETRIES = ['geometry', 'point', 'linestring', 'polygon', 'multipoint', 'multilinestring', 'multipolygon', 'geometrycollection']

/** Bytes of a char or binary column: two of their bits hide, inverted, in the type. */
export function stringBytes(meta: number): number {
  return (meta & 0xff) | ((((meta >> 8) & 0x30) ^ 0x30) << 4)
}

/** Of a varchar or varbinary column at most; one that is compressed has another byte, which says how. */
function varcharBytes({ type, meta }: WireColumn): number {
  return type === TYPE.mariadbVarcharCompressed ? meta - 1 : meta
}

/** A member of an enum or set, which comes in the column's character set. */
export function memberText(bytes: Buffer, charset: string | null): string {
  return decoderOf(charset ?? 'utf8mb4')?.(bytes, 0, bytes.length) ?? bytes.toString('utf8')
}

/** A column as a table map with full metadata describes it. @throws source.schema_unsupported */
export function defineWireColumn(wire: WireColumn, charsets: Charsets): ColumnDefinition {
  const { meta } = wire
  const charset = wire.collation === null ? null : (charsets.ofCollation.get(wire.collation) ?? null)
  const width = charset === null ? 1 : (charsets.widths.get(charset) ?? 1)
  const isBytes = charset === 'binary'
  const column = (base: string, args: readonly number[] = [], values: readonly Buffer[] = []): ColumnDefinition => ({
    name: wire.name ?? '',
    base,
    args,
    unsigned: wire.unsigned === true && base !== 'year',
    values: values.map((value) => memberText(value, charset)),
    charset: charsetOf(base, charset),
    nullable: wire.nullable,
    generated: false,
  })
  const real = realType(wire.type, meta)
  if (SIMPLE[real] !== undefined) return column(SIMPLE[real])
  switch (real) {
    case TYPE.newdecimal:
      return column('decimal', [meta >> 8, meta & 0xff])
    case TYPE.bit:
      return column('bit', [(meta & 0xff) * 8 + (meta >> 8)])
    case TYPE.timestamp2:
      return column('timestamp', [meta])
    case TYPE.datetime2:
      return column('datetime', [meta])
    case TYPE.time2:
      return column('time', [meta])
    case TYPE.varchar:
    case TYPE.varString:
    case TYPE.mariadbVarcharCompressed:
      return column(isBytes ? 'varbinary' : 'varchar', [Math.trunc(varcharBytes(wire) / width)])
    case TYPE.string:
      return column(isBytes ? 'binary' : 'char', [Math.trunc(stringBytes(meta) / width)])
    case TYPE.blob:
    case TYPE.mariadbBlobCompressed:
      return column(`${['tiny', '', 'medium', 'long'][meta - 1]}${isBytes ? 'blob' : 'text'}`)
    case TYPE.enum:
      return column('enum', [], wire.values ?? [])
    case TYPE.set:
      return column('set', [], wire.values ?? [])
    case TYPE.geometry:
      return column(GEOMETRIES[wire.geometry ?? 0] ?? 'geometry')
    case TYPE.vector:
      return column('vector', wire.dimension === null ? [] : [wire.dimension])
    default:
      throw new MillraceError('source.schema_unsupported', `column ${wire.name}: type ${wire.type} of a table map is not known to Millrace`, {
        fix: 'leave the table out in `tables` of the source, and report this with the server version',
      })
  }
}

const WIRE_TYPES: Readonly<Record<string, readonly number[]>> = {
  ...Object.fromEntries(Object.entries(SIMPLE).map(([type, base]) => [base, [Number(type)]])),
  date: [TYPE.date, TYPE.newdate],
  decimal: [TYPE.newdecimal],
  bit: [TYPE.bit],
  timestamp: [TYPE.timestamp2],
  datetime: [TYPE.datetime2],
  time: [TYPE.time2],
  char: [TYPE.string],
  binary: [TYPE.string],
  varchar: [TYPE.varchar, TYPE.varString, TYPE.mariadbVarcharCompressed],
  varbinary: [TYPE.varchar, TYPE.varString, TYPE.mariadbVarcharCompressed],
  enum: [TYPE.enum],
  set: [TYPE.set],
  vector: [TYPE.vector, TYPE.varchar],
  uuid: [TYPE.string],
  inet4: [TYPE.string],
  inet6: [TYPE.string],
}

/** Whether a row event with this column can be read by this definition: the same layout and, where the event says them, name, sign and character set. */
export function fits(column: ColumnDefinition, wire: WireColumn, charsets: Charsets): boolean {
  const real = realType(wire.type, wire.meta)
  const { base, args } = column
  if (wire.name !== null && wire.name !== column.name) return false
  if (wire.unsigned !== null && INTEGERS.has(base) && wire.unsigned !== column.unsigned) return false
  if (wire.values !== null && wire.values.map((value) => memberText(value, column.charset)).join('\0') !== column.values.join('\0')) return false
  if (wire.collation !== null && column.charset !== null && charsets.ofCollation.get(wire.collation) !== column.charset) return false
  if (GEOMETRIES.includes(base)) return real === TYPE.geometry && (wire.geometry === null || GEOMETRIES[wire.geometry] === base)
  if (base.endsWith('blob') || base.endsWith('text')) {
    const size = ['tiny', '', 'medium', 'long'].indexOf(base.slice(0, -4)) + 1
    return (real === TYPE.blob || real === TYPE.mariadbBlobCompressed) && wire.meta === size
  }
  if (WIRE_TYPES[base]?.includes(real) !== true) return false
  switch (base) {
    case 'decimal':
      return wire.meta === ((args[0]! << 8) | args[1]!)
    case 'bit':
      return args[0] === (wire.meta & 0xff) * 8 + (wire.meta >> 8)
    case 'timestamp':
    case 'datetime':
    case 'time':
      return wire.meta === args[0]
    case 'char':
    case 'binary':
      return stringBytes(wire.meta) === args[0]! * (charsets.widths.get(column.charset ?? 'binary') ?? 1)
    case 'varchar':
    case 'varbinary':
      return varcharBytes(wire) === args[0]! * (charsets.widths.get(column.charset ?? 'binary') ?? 1)
    default:
      return true
  }
}
