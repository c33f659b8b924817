/** Types of CQL as `system_schema` writes them. */
import { MillraceError } from '../../core/plugin.ts'

export type NativeType =
  | 'ascii'
  | 'bigint'
  | 'blob'
  | 'boolean'
  | 'counter'
  | 'date'
  | 'decimal'
  | 'double'
  | 'duration'
  | 'empty'
  | 'float'
  | 'inet'
  | 'int'
  | 'smallint'
  | 'text'
  | 'time'
  | 'timestamp'
  | 'timeuuid'
  | 'tinyint'
  | 'uuid'
  | 'varint'

export type CqlType =
  | { readonly kind: 'native'; readonly name: NativeType }
  | { readonly kind: 'list' | 'set'; readonly element: CqlType; readonly frozen: boolean }
  | { readonly kind: 'map'; readonly key: CqlType; readonly value: CqlType; readonly frozen: boolean }
  | { readonly kind: 'tuple'; readonly elements: readonly CqlType[] }
  | { readonly kind: 'vector'; readonly element: CqlType; readonly dimension: number }
  | { readonly kind: 'udt'; readonly name: string; readonly fields: readonly UserTypeField[]; readonly frozen: boolean }

export interface UserTypeField {
  readonly name: string
  readonly type: CqlType
}

/** A user type of the keyspace, as `system_schema.types` has it; undefined: there is none. */
export type UserTypes = (name: string) => { readonly fieldNames: readonly string[]; readonly fieldTypes: readonly string[] } | undefined

const NATIVE = new Set<string>([
  'ascii',
  'bigint',
  'blob',
  'boolean',
  'counter',
  'date',
  'decimal',
  'double',
  'duration',
  'empty',
  'float',
  'inet',
  'int',
  'smallint',
  'text',
  'time',
  'timestamp',
  'timeuuid',
  'tinyint',
  'uuid',
  'varint',
] satisfies NativeType[])

/** Classes without a name in CQL, by what their values are. */
const CLASSES: Readonly<Record<string, NativeType>> = {
  EmptyType: 'empty',
  LexicalUUIDType: 'uuid',
  DateType: 'timestamp',
}
const MARSHAL = 'org.apache.cassandra.db.marshal.'

/** Bytes of a value of the type where all have as many (`AbstractType.valueLengthIfFixed`); else -1, and values come with their length. */
const FIXED: Partial<Record<NativeType, number>> = { boolean: 1, int: 4, float: 4, bigint: 8, double: 8, timestamp: 8, uuid: 16, timeuuid: 16, empty: 0 }

/**
 * Parses the type of a column: `map<text, frozen<list<int>>>`, `frozen<"Address">`, `vector<float, 3>`.
 * @throws source.schema_unsupported for a type that is not known
 */
export function parseCqlType(text: string, userTypes: UserTypes): CqlType {
  return new TypeParser(text, userTypes).parse()
}

/** As in `system_schema`. */
export function cqlTypeText(type: CqlType): string {
  switch (type.kind) {
    case 'native':
      return type.name
    case 'tuple':
      return `frozen<tuple<${type.elements.map(cqlTypeText).join(', ')}>>`
    case 'vector':
      return `vector<${cqlTypeText(type.element)}, ${type.dimension}>`
    case 'list':
    case 'set':
      return frozenText(type.frozen, `${type.kind}<${cqlTypeText(type.element)}>`)
    case 'map':
      return frozenText(type.frozen, `map<${cqlTypeText(type.key)}, ${cqlTypeText(type.value)}>`)
    case 'udt':
      return frozenText(type.frozen, /^[a-z][a-z0-9_]*$/.test(type.name) ? type.name : `"${type.name.replaceAll('"', '""')}"`)
  }
}

function frozenText(frozen: boolean, text: string): string {
  return frozen ? `frozen<${text}>` : text
}

/** Each element is a cell of its own, so that it is written alone. */
export function isMultiCell(type: CqlType): boolean {
  return (type.kind === 'list' || type.kind === 'set' || type.kind === 'map' || type.kind === 'udt') && !type.frozen
}

/** See {@link FIXED}; -1: of any length. */
export function fixedLength(type: CqlType): number {
  if (type.kind === 'native') return FIXED[type.name] ?? -1
  if (type.kind !== 'vector') return -1
  const element = fixedLength(type.element)
  return element < 0 ? -1 : element * type.dimension
}

class TypeParser {
  readonly #text: string
  readonly #userTypes: UserTypes
  #at = 0

  constructor(text: string, userTypes: UserTypes) {
    this.#text = text
    this.#userTypes = userTypes
  }

  /** What is inside another type is frozen, whether it is said or not. */
  parse(frozen = false): CqlType {
    const type = this.#type(frozen)
    if (this.#at !== this.#text.length) this.#unknown()
    return type
  }

  #type(frozen: boolean): CqlType {
    const name = this.#name()
    switch (name) {
      case 'frozen':
        return this.#inside(() => this.#type(true))
      case 'list':
      case 'set':
        return { kind: name, element: this.#inside(() => this.#type(true)), frozen }
      case 'map':
        return this.#inside(() => {
          const key = this.#type(true)
          this.#expect(',')
          return { kind: 'map', key, value: this.#type(true), frozen }
        })
      case 'tuple':
        return this.#inside(() => {
          const elements = [this.#type(true)]
          while (this.#text[this.#at] === ',') {
            this.#expect(',')
            elements.push(this.#type(true))
          }
          return { kind: 'tuple', elements }
        })
      case 'vector':
        return this.#inside(() => {
          const element = this.#type(true)
          this.#expect(',')
          const dimension = Number(this.#match(/\d+/y))
          return { kind: 'vector', element, dimension }
        })
      case 'varchar':
        return { kind: 'native', name: 'text' }
    }
    if (NATIVE.has(name)) return { kind: 'native', name: name as NativeType }
    if (name.startsWith("'")) return this.#class(name.slice(1, -1))
    const plain = name.startsWith('"') ? name.slice(1, -1).replaceAll('""', '"') : name
    const definition = this.#userTypes(plain)
    if (definition === undefined) this.#unknown()
    const fields = definition.fieldNames.map((field, i) => ({ name: field, type: new TypeParser(definition.fieldTypes[i]!, this.#userTypes).parse(true) }))
    return { kind: 'udt', name: plain, fields, frozen }
  }

  #class(name: string): CqlType {
    const native = name.startsWith(MARSHAL) ? CLASSES[name.slice(MARSHAL.length)] : undefined
    if (native === undefined) this.#unknown()
    return { kind: 'native', name: native }
  }

  #name(): string {
    return this.#match(/[A-Za-z0-9_.]+|"(?:[^"]|"")+"|'[^']+'/y)
  }

  #inside<T>(read: () => T): T {
    this.#expect('<')
    const value = read()
    this.#expect('>')
    return value
  }

  #expect(character: string): void {
    if (this.#text[this.#at] !== character) this.#unknown()
    this.#at++
    while (this.#text[this.#at] === ' ') this.#at++
  }

  #match(pattern: RegExp): string {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0] ?? this.#unknown()
    this.#at += found.length
    return found
  }

  #unknown(): never {
    throw new MillraceError('source.schema_unsupported', `the type ${this.#text} is not known to Millrace`, {
      fix: 'leave the table out in `tables` of the source',
    })
  }
}
