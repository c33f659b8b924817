import { type ChangeWriter, type ColumnType, MillraceError, type ScalarKind, SingleValue, Special, type Value, viewOf } from '../../core/plugin.ts'

/**
 * Writes one column from its wire form at [at, at+length) of `bytes` (`view` is a DataView over the same memory with the same origin as `bytes`).
 * Makes exactly one call on `writer`.
 */
export type WireReader = (bytes: Buffer, view: DataView, at: number, length: number, writer: ChangeWriter) => void

/** How a Postgres type is read: both wire forms give the same calls. */
export interface TypeReader {
  readonly type: ColumnType
  /** null: the binary form is not known; the column has to be asked for as text. */
  readonly binary: WireReader | null
  /** The type's output function, as the session settings of `SESSION_SETTINGS` shape it. */
  readonly text: WireReader
  /** Postgres' own text of a value that the readers gave; accepted by the type's input function. */
  readonly format: (value: Value) => string
  /** Some values are written with `special`. */
  readonly canBeSpecial: boolean
}

/** How containers read their elements; not reentrant beyond one call. */
const single = new SingleValue()

/** The value of a wire form at [at, at+length). Length -1 is NULL. */
export function readValue(reader: WireReader, bytes: Buffer, view: DataView, at: number, length: number): Value {
  if (length < 0) return null
  reader(bytes, view, at, length, single)
  return single.taken
}

/** The value of a text. */
export function readText(reader: TypeReader, text: string): Value {
  const bytes = Buffer.from(text)
  reader.text(bytes, viewOf(bytes), 0, bytes.length, single)
  return single.taken
}

/** Postgres' text of a value, special ones included. */
export function formatValue(reader: TypeReader, value: Value): string {
  return value instanceof Special ? value.text : reader.format(value)
}

const BINARY_FIX = 'set `binary: false` on the source; if it fails still, report this with the server version'

/** What a reader threw, with the place of the value; an error that is not about its bytes stays as it is. */
export function unreadable(error: unknown, where: string, length: number): MillraceError {
  if (!(error instanceof MillraceError))
    return new MillraceError('source.protocol', `${where}: its ${length} bytes do not read as its type`, { fix: BINARY_FIX, cause: error })
  if (error.code !== 'source.protocol') return error
  return new MillraceError('source.protocol', `${where}, ${length} bytes: ${error.message}`, {
    ...(error.fix === undefined ? {} : { fix: error.fix }),
    cause: error,
  })
}

/** The text as it came. */
export const passText: WireReader = (bytes, _view, at, length, writer) => writer.text(bytes, at, at + length)

/**
 * A type that is read as Postgres' text (or, for `kind`, as another textual kind).
 * @param binary the text of a binary form; null when that is not known
 * @param canonical the one text of several that the output function may give; the text as it is when left out
 */
export function textual(
  binary: ((bytes: Buffer, view: DataView, at: number, length: number) => string) | 'same' | null,
  canonical?: (text: string) => string,
  type: ColumnType = { kind: 'string' },
): TypeReader {
  return {
    type,
    binary: binary === 'same' ? passText : binary === null ? null : (bytes, view, at, length, writer) => writer.string(binary(bytes, view, at, length)),
    text: canonical === undefined ? passText : (bytes, _view, at, length, writer) => writer.string(canonical(bytes.toString('utf8', at, at + length))),
    format: String,
    canBeSpecial: false,
  }
}

export function scalar(kind: ScalarKind, binary: WireReader, text: WireReader, format: (value: Value) => string, canBeSpecial = false): TypeReader {
  return { type: { kind }, binary, text, format, canBeSpecial }
}

/** A binary value of a type with one size has exactly `size` bytes: those behind it are of the next column. */
export function expectLength(length: number, size: number, type: string): void {
  if (length !== size) malformed(type, 'binary')
}

/** A value that is not in the form its type's send or output function gives. The value itself stays out of the message. */
export function malformed(type: string, form: 'binary' | 'text'): never {
  if (form === 'binary') throw new MillraceError('source.protocol', `the bytes are not the binary form of a ${type}`, { fix: BINARY_FIX })
  throw new MillraceError('source.protocol', `a ${type} came in a text form that Postgres does not write with the session settings that Millrace asks for`, {
    fix: 'remove settings of DateStyle, IntervalStyle, bytea_output or client_encoding that are forced on the replication role; report this when there are none',
  })
}
