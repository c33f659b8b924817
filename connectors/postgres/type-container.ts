/** Arrays, ranges, composites, hstore and vectors. Source: src/backend/utils/adt/{arrayfuncs,rangetypes,multirangetypes,rowtypes}.c of PostgreSQL, contrib/hstore. */
import { type ColumnType, Special, type Value } from '../../core/plugin.ts'
import { formatFloat4, parseFloat8 } from './type-number.ts'
import { expectLength, formatValue, malformed, readText, readValue, type TypeReader, textual, type WireReader } from './type-reader.ts'

/** Walks the parts of a binary container at [at, at+length), each a length and so many bytes: none reaches beyond it. */
class Parts {
  readonly #bytes: Buffer
  readonly #view: DataView
  readonly #type: string
  readonly #end: number
  #at: number

  constructor(bytes: Buffer, view: DataView, at: number, length: number, type: string) {
    this.#bytes = bytes
    this.#view = view
    this.#type = type
    this.#at = at
    this.#end = at + length
  }

  /** So many bytes that are taken. @returns where they begin */
  take(length: number): number {
    if (length > this.#end - this.#at) malformed(this.#type, 'binary')
    const from = this.#at
    this.#at += length
    return from
  }

  int(): number {
    return this.#view.getInt32(this.take(4))
  }

  /** A number of things of at least `leastBytes` each, all of which must still fit. */
  count(leastBytes: number): number {
    const count = this.int()
    if (count < 0 || count > (this.#end - this.#at) / leastBytes) malformed(this.#type, 'binary')
    return count
  }

  /** Length of the next part; -1: NULL. */
  length(): number {
    const length = this.int()
    if (length < -1 || length > this.#end - this.#at) malformed(this.#type, 'binary')
    return length
  }

  value(reader: WireReader): Value {
    const length = this.length()
    return readValue(reader, this.#bytes, this.#view, this.take(Math.max(0, length)), length)
  }

  text(): string | null {
    const length = this.length()
    if (length < 0) return null
    const from = this.take(length)
    return this.#bytes.toString('utf8', from, from + length)
  }

  end(): void {
    if (this.#at !== this.#end) malformed(this.#type, 'binary')
  }
}

interface PlainArray {
  readonly dimensions: readonly { readonly size: number; readonly lower: number }[]
  readonly values: readonly Value[]
}

/**
 * An array. `{1,2}` is an array of values; an array of more dimensions, with another lower bound than 1, or with an element that is special, is special as a
 * whole, in the text of array_out. A column declared with several dimensions (`int[][]`) is a string of that text.
 */
export function arrayOf(element: TypeReader, delimiter: string, declaredDimensions: number): TypeReader {
  const asText = declaredDimensions > 1
  const type: ColumnType = asText ? { kind: 'string' } : { kind: 'array', element: element.type }
  const settle = (array: PlainArray): Value => {
    if (asText) return formatArray(array, element, delimiter)
    const flat = array.dimensions.length === 0 || (array.dimensions.length === 1 && array.dimensions[0]!.lower === 1)
    return flat && !array.values.some((value) => value instanceof Special) ? array.values : new Special(formatArray(array, element, delimiter))
  }
  const { binary } = element
  return {
    type,
    binary:
      binary === null
        ? null
        : (bytes, view, at, length, writer) => {
            const parts = new Parts(bytes, view, at, length, 'array')
            const count = parts.count(8)
            // whether there are NULLs, and the type of the elements
            parts.take(8)
            let total = count === 0 ? 0 : 1
            const dimensions = Array.from({ length: count }, () => {
              const size = parts.count(4)
              const lower = parts.int()
              total *= size
              return { size, lower }
            })
            // each takes four bytes or more
            if (total > length / 4) malformed('array', 'binary')
            const values = Array.from({ length: total }, () => parts.value(binary))
            parts.end()
            writer.value(settle({ dimensions, values }))
          },
    text: (bytes, _view, at, length, writer) => writer.value(settle(parseArray(bytes.toString('utf8', at, at + length), element, delimiter))),
    format: (value) =>
      typeof value === 'string'
        ? value
        : formatArray({ dimensions: [{ size: (value as readonly Value[]).length, lower: 1 }], values: value as readonly Value[] }, element, delimiter),
    canBeSpecial: !asText,
  }
}

function formatArray(array: PlainArray, element: TypeReader, delimiter: string): string {
  const { dimensions, values } = array
  if (values.length === 0) return '{}'
  let next = 0
  const level = (depth: number): string => {
    if (depth === dimensions.length) {
      const value = values[next++]!
      return value === null ? 'NULL' : quoteElement(formatValue(element, value), delimiter)
    }
    return `{${Array.from({ length: dimensions[depth]!.size }, () => level(depth + 1)).join(delimiter)}}`
  }
  const bounds = dimensions.every(({ lower }) => lower === 1) ? '' : `${dimensions.map(({ size, lower }) => `[${lower}:${lower + size - 1}]`).join('')}=`
  return bounds + level(0)
}

function quoteElement(text: string, delimiter: string): string {
  const plain = text !== '' && text.toUpperCase() !== 'NULL' && !/["\\{}\s]/.test(text) && !text.includes(delimiter)
  return plain ? text : `"${text.replace(/["\\]/g, '\\$&')}"`
}

function parseArray(text: string, element: TypeReader, delimiter: string): PlainArray {
  const bounds = /^(?:\[-?\d+:-?\d+\])+=/.exec(text)?.[0] ?? ''
  const lowers = Array.from(bounds.matchAll(/\[(-?\d+):/g), ([, lower]) => Number(lower))
  let at = bounds.length
  const sizes: number[] = []
  const values: Value[] = []
  const level = (depth: number): void => {
    if (text[at++] !== '{') malformed('array', 'text')
    let size = 0
    while (text[at] !== '}') {
      if (at >= text.length) malformed('array', 'text')
      if (size > 0 && text[at++] !== delimiter) malformed('array', 'text')
      if (text[at] === '{') level(depth + 1)
      else if (text[at] === '"') {
        const quoted = takeQuoted(text, at)
        at = quoted.end
        values.push(readText(element, quoted.text))
      } else {
        const from = at
        while (at < text.length && text[at] !== delimiter && text[at] !== '}') at++
        const item = text.slice(from, at)
        values.push(item === 'NULL' ? null : readText(element, item))
      }
      size++
    }
    at++
    sizes[depth] = size
  }
  level(0)
  if (at !== text.length) malformed('array', 'text')
  return { dimensions: values.length === 0 ? [] : sizes.map((size, i) => ({ size, lower: lowers[i] ?? 1 })), values }
}

/** What stands between quotes from `at` on; a backslash or a second quote escapes. */
function takeQuoted(text: string, at: number): { readonly text: string; readonly end: number } {
  let out = ''
  for (let i = at + 1; i < text.length; i++) {
    const char = text[i]!
    if (char === '\\') out += text[++i] ?? ''
    else if (char !== '"') out += char
    else if (text[i + 1] === '"') {
      out += '"'
      i++
    } else return { text: out, end: i + 1 }
  }
  return malformed('quoted value', 'text')
}

/** A field of a composite or a bound of a range as record_out and range_out quote it: quotes and backslashes doubled. */
function quoteField(text: string, plain: RegExp): string {
  return plain.test(text) ? text : `"${text.replace(/["\\]/g, '$&$&')}"`
}

const PLAIN_FIELD = /^[^"\\(),\s]+$/
const PLAIN_BOUND = /^[^"\\()[\],\s]+$/

/** A composite. With a field that is special it is special as a whole, in the text of record_out. */
export function recordOf(fields: readonly { readonly name: string; readonly reader: TypeReader }[]): TypeReader {
  const format = (values: readonly Value[]) =>
    `(${values.map((value, i) => (value === null ? '' : quoteField(formatValue(fields[i]!.reader, value), PLAIN_FIELD))).join(',')})`
  const settle = (values: readonly Value[]): Value => (values.some((value) => value instanceof Special) ? new Special(format(values)) : values)
  const decodable = fields.every(({ reader }) => reader.binary !== null)
  return {
    type: { kind: 'record', fields: fields.map(({ name, reader }) => ({ name, type: reader.type })) },
    binary: decodable
      ? (bytes, view, at, length, writer) => {
          const parts = new Parts(bytes, view, at, length, 'composite')
          if (parts.int() !== fields.length) malformed('composite', 'binary')
          const values = fields.map(({ reader }) => {
            // the oid of its type
            parts.take(4)
            return parts.value(reader.binary!)
          })
          parts.end()
          writer.value(settle(values))
        }
      : null,
    text: (bytes, _view, at, length, writer) => {
      const texts = splitRecord(bytes.toString('utf8', at, at + length))
      if (texts.length !== fields.length && !(fields.length === 0 && texts[0] === null)) malformed('composite', 'text')
      writer.value(settle(fields.map(({ reader }, i) => (texts[i] === null ? null : readText(reader, texts[i]!)))))
    },
    format: (value) => format(value as readonly Value[]),
    canBeSpecial: fields.some(({ reader }) => reader.canBeSpecial),
  }
}

function splitRecord(text: string): readonly (string | null)[] {
  if (!text.startsWith('(') || !text.endsWith(')')) malformed('composite', 'text')
  const fields: (string | null)[] = []
  let at = 1
  for (;;) {
    if (text[at] === '"') {
      const quoted = takeQuoted(text, at)
      fields.push(quoted.text)
      at = quoted.end
    } else {
      const from = at
      while (text[at] !== ',' && at < text.length - 1) at++
      fields.push(at === from ? null : text.slice(from, at))
    }
    if (at === text.length - 1) return fields
    if (text[at++] !== ',') malformed('composite', 'text')
  }
}

/** A range, as the text of range_out with its bounds in the one text of their type. */
export function rangeOf(bound: TypeReader): TypeReader {
  return textual(bound.binary === null ? null : (bytes, view, at, length) => rangeText(bound, bytes, view, at, length), (text) => {
    const { range, end } = takeRange(text, 0, bound)
    return end === text.length ? range : malformed('range', 'text')
  })
}

export function multirangeOf(bound: TypeReader): TypeReader {
  return textual(
    bound.binary === null
      ? null
      : (bytes, view, at, length) => {
          const parts = new Parts(bytes, view, at, length, 'multirange')
          const ranges = Array.from({ length: parts.count(5) }, () => {
            const size = Math.max(0, parts.length())
            return rangeText(bound, bytes, view, parts.take(size), size)
          })
          parts.end()
          return `{${ranges.join(',')}}`
        },
    (text) => {
      if (!text.startsWith('{') || !text.endsWith('}')) malformed('multirange', 'text')
      const ranges: string[] = []
      let at = 1
      while (at < text.length - 1) {
        const { range, end } = takeRange(text, at, bound)
        ranges.push(range)
        at = text[end] === ',' ? end + 1 : end
      }
      return `{${ranges.join(',')}}`
    },
  )
}

const EMPTY = 0x01
const LOWER_INCLUSIVE = 0x02
const UPPER_INCLUSIVE = 0x04
const LOWER_INFINITE = 0x08
const UPPER_INFINITE = 0x10

function rangeText(bound: TypeReader, bytes: Buffer, view: DataView, at: number, length: number): string {
  const parts = new Parts(bytes, view, at, length, 'range')
  const flags = bytes[parts.take(1)]!
  if ((flags & EMPTY) !== 0) {
    parts.end()
    return 'empty'
  }
  const take = (infinite: number): string => {
    if ((flags & infinite) !== 0) return ''
    const value = parts.value(bound.binary!)
    if (value === null) malformed('range', 'binary')
    return quoteField(formatValue(bound, value), PLAIN_BOUND)
  }
  const lower = take(LOWER_INFINITE)
  const upper = take(UPPER_INFINITE)
  parts.end()
  return `${(flags & LOWER_INCLUSIVE) !== 0 ? '[' : '('}${lower},${upper}${(flags & UPPER_INCLUSIVE) !== 0 ? ']' : ')'}`
}

function takeRange(text: string, from: number, bound: TypeReader): { readonly range: string; readonly end: number } {
  if (text.startsWith('empty', from)) return { range: 'empty', end: from + 5 }
  let at = from + 1
  const take = (): string => {
    let item: string
    if (text[at] === '"') {
      const quoted = takeQuoted(text, at)
      item = quoted.text
      at = quoted.end
    } else {
      const start = at
      while (at < text.length && !',)]'.includes(text[at]!)) at++
      if (at === start) return ''
      item = text.slice(start, at)
    }
    return quoteField(formatValue(bound, readText(bound, item)), PLAIN_BOUND)
  }
  const open = text[from]!
  const lower = take()
  if (!'[('.includes(open) || text[at++] !== ',') malformed('range', 'text')
  const upper = take()
  const close = text[at] ?? ''
  if (close !== ')' && close !== ']') malformed('range', 'text')
  return { range: `${open}${lower},${upper}${close}`, end: at + 1 }
}

/** hstore: the number of pairs; each the length and bytes of its key, and of its value (-1: NULL). */
export const hstore: TypeReader = {
  type: { kind: 'map' },
  binary: (bytes, view, at, length, writer) => {
    const parts = new Parts(bytes, view, at, length, 'hstore')
    const entries = new Map<string, string | null>()
    for (let left = parts.count(8); left > 0; left--) {
      const key = parts.text()
      if (key === null) malformed('hstore', 'binary')
      entries.set(key, parts.text())
    }
    parts.end()
    writer.value(entries)
  },
  text: (bytes, _view, at, length, writer) => {
    const text = bytes.toString('utf8', at, at + length)
    const entries = new Map<string, string | null>()
    for (let next = 0; next < text.length; ) {
      if (text[next] !== '"') malformed('hstore', 'text')
      const key = takeQuoted(text, next)
      next = key.end + 2
      if (!text.startsWith('=>', key.end)) malformed('hstore', 'text')
      if (text[next] === '"') {
        const value = takeQuoted(text, next)
        entries.set(key.text, value.text)
        next = value.end
      } else {
        if (!text.startsWith('NULL', next)) malformed('hstore', 'text')
        entries.set(key.text, null)
        next += 4
      }
      if (next < text.length) {
        if (!text.startsWith(', ', next)) malformed('hstore', 'text')
        next += 2
      }
    }
    writer.value(entries)
  },
  format: (value) => {
    const quote = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`
    return [...(value as ReadonlyMap<string, string | null>)].map(([key, item]) => `${quote(key)}=>${item === null ? 'NULL' : quote(item)}`).join(', ')
  },
  canBeSpecial: false,
}

/** pgvector's vector: the number of dimensions, an unused word, float4s; text `[1,2.5]`. */
export const vector: TypeReader = {
  type: { kind: 'array', element: { kind: 'float32' } },
  binary: (_bytes, view, at, length, writer) => {
    if (length < 4) malformed('vector', 'binary')
    const count = view.getUint16(at)
    expectLength(length, 4 + 4 * count, 'vector')
    writer.value(Array.from({ length: count }, (_, i) => view.getFloat32(at + 4 + 4 * i)))
  },
  text: (bytes, _view, at, length, writer) => {
    const text = bytes.toString('latin1', at, at + length)
    if (!text.startsWith('[') || !text.endsWith(']')) malformed('vector', 'text')
    const inside = text.slice(1, -1)
    writer.value(inside === '' ? [] : inside.split(',').map((item) => Math.fround(parseFloat8(item))))
  },
  format: (value) => `[${(value as readonly number[]).map(formatFloat4).join(',')}]`,
  canBeSpecial: false,
}
