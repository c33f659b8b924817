import { MillraceError, type Value } from '../../core/plugin.ts'
import type { CatalogTable } from './catalog.ts'
import { readValue } from './column-types.ts'
import { type Hlc, parseHlc } from './hlc.ts'
import { elements, members, NoJson, type Token, textOf } from './json-text.ts'

/** What a changefeed gave: of a row, or (without a table) a resolved timestamp. */
export interface FeedMessage {
  readonly table: string | null
  readonly key: Buffer
  readonly value: Buffer
}

/** A row's state after and, with `diff`, before a change; null: there is no row. */
export interface RowImages {
  readonly after: Token | null
  readonly before: Token | null
  /** The changefeed says what was before. */
  readonly saysBefore: boolean
}

/** `{"resolved":"1629813621680097993.0000000000"}` @throws source.protocol, with `where` */
export function resolvedOf(value: Buffer, where: () => string): Hlc {
  return reading(where, () => stamp(members(decode(value)).get('resolved')))
}

/** When the change was committed: `updated` of the wrapped envelope, `source.ts_hlc` of the enriched one. @throws source.protocol, with `where` */
export function committedAt(value: Buffer, where: () => string): Hlc {
  return reading(where, () => {
    const message = payload(decode(value))
    const source = message.get('source')
    return stamp(message.get('updated') ?? (source?.kind === 'object' ? members(source.raw).get('ts_hlc') : undefined))
  })
}

/** @throws source.protocol, with `where` */
export function imagesOf(value: Buffer, where: () => string): RowImages {
  return reading(where, () => {
    const message = payload(decode(value))
    const image = (name: string) => {
      const token = message.get(name)
      if (token === undefined || token.kind === 'null') return null
      if (token.kind !== 'object') throw new NoJson(`an object as ${name}`, 0)
      return token
    }
    if (!message.has('after')) throw new NoJson('a member after', 0)
    return { after: image('after'), before: image('before'), saysBefore: message.has('before') }
  })
}

/** A row's values in the order of the table's columns; null: the row is of another shape. */
export function rowValues(table: CatalogTable, image: Token): readonly Value[] | null {
  const found = members(image.raw)
  const { columns } = table.schema
  if (found.size !== columns.length) return null
  return allOrNull(columns.map(({ name, type }) => valueAt(found.get(name), type)))
}

/** Values of the key's columns in table order, from `[1, "a"]` in the order of the primary index, or `{"id": 1}`; null: it is of another shape. */
export function keyValues(table: CatalogTable, key: Buffer): readonly Value[] | null {
  const text = decode(key)
  const { schema, keyOrder } = table
  const token = (index: number): Token | undefined => {
    if (text.startsWith('{')) return members(text).get(schema.columns[index]!.name)
    const list = elements(text)
    return list.length === keyOrder.length ? list[keyOrder.indexOf(index)] : undefined
  }
  return allOrNull(schema.key.map((index) => valueAt(token(index), schema.columns[index]!.type)))
}

const valueAt = (token: Token | undefined, type: CatalogTable['schema']['columns'][number]['type']) =>
  token === undefined ? undefined : readValue(type, token)

const allOrNull = (values: readonly (Value | undefined)[]) => (values.includes(undefined) ? null : (values as readonly Value[]))

/** The members of a message; those of `payload` when it carries its schema. */
function payload(text: string): ReadonlyMap<string, Token> {
  const message = members(text)
  const inner = message.get('payload')
  return inner?.kind === 'object' && !message.has('after') ? members(inner.raw) : message
}

function stamp(token: Token | undefined): Hlc {
  const at = token?.kind === 'string' ? parseHlc(textOf(token)) : null
  if (at === null) throw new NoJson('a timestamp (updated, source.ts_hlc or resolved)', 0)
  return at
}

const utf8 = new TextDecoder('utf-8', { fatal: true })

function decode(bytes: Buffer): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw new NoJson('UTF-8', 0)
  }
}

/** Runs `work`. The value itself stays out of the message. @throws source.protocol that says where the message came and at which character it is wrong */
export function reading<T>(where: () => string, work: () => T): T {
  try {
    return work()
  } catch (cause) {
    if (!(cause instanceof NoJson)) throw cause
    throw new MillraceError('source.protocol', `${where()} cannot be read: ${cause.message}`, {
      fix: 'nothing was skipped: restart the source, which asks for it again; if it stays, report it, and read the tables anew with --resnapshot',
      cause,
    })
  }
}
