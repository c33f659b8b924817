/** The tables of types in READMEs, held against what the code makes of a type. */
import { readFileSync } from 'node:fs'
import { expect } from 'vitest'
import type { ColumnType } from '../../../core/event/table-schema.ts'
import { envelopeSchemaOf } from '../../../core/schema/avro-mapping.ts'

/** Cells of a Markdown table, without its head, found by the head's first cell. */
export function tableOf(file: string, head: string): readonly (readonly string[])[] {
  const lines = readFileSync(file, 'utf8').split('\n')
  const at = lines.findIndex((line) => line.startsWith(`| ${head} |`))
  expect(at, `${file} has no table ${head}`).toBeGreaterThanOrEqual(0)
  const rest = lines.slice(at + 2)
  return rest
    .slice(
      0,
      rest.findIndex((line) => !line.startsWith('|')),
    )
    .map((line) =>
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )
}

/** The types that a row names: those of `examples`, or its first cell's own words without what stands in brackets behind them. */
export function typesOf(cell: string, examples: Readonly<Record<string, readonly string[]>>): readonly string[] {
  return (
    examples[cell] ??
    cell
      .replace(/ \([A-Z][^)]*\)$/, '')
      .split(',')
      .map((type) => type.trim())
  )
}

type Avro = string | { readonly type: Avro; readonly logicalType?: string; readonly items?: readonly Avro[] } | readonly Avro[]

function avroText(type: ColumnType): string {
  const column = { name: 'c', id: 1, type, sourceType: '', nullable: true, mayBeUnchanged: false, maybeSpecial: false }
  const envelope = JSON.parse(envelopeSchemaOf({ namespace: 'n', name: 't', columns: [column], key: [] }, { recordNamespace: 'r', sourceFields: [] }))
  const avro = envelope.fields[0].type[1].fields[0].type[1] as Avro
  return say(avro)
}

function say(avro: Avro): string {
  if (typeof avro === 'string') return avro
  if (Array.isArray(avro)) return say(avro[1])
  const { type, logicalType, items } = avro as { readonly type: Avro; readonly logicalType?: string; readonly items?: Avro }
  if (items !== undefined) return `array of ${say(items)}`
  return logicalType === undefined ? say(type) : `${say(type)}, ${logicalType}`
}

function kindText(type: ColumnType): string {
  if (type.kind === 'decimal') return `decimal(${type.precision},${type.scale})`
  return type.kind === 'array' ? `array of ${kindText(type.element)}` : type.kind
}

/** Whether `said` names it: all of it, or without what is in brackets or behind "of". */
const names = (said: string, text: string) => [text, text.replace(/\(.*/, ''), text.replace(/ of .*/, '')].includes(said.replace(/, scale of .*\)/, ',2)'))

/** A row of types, its Millrace kinds and its Avro types, against the types that the code gives; both columns may name several. */
export function expectRow(row: readonly string[], types: readonly (readonly [name: string, type: ColumnType])[]): void {
  const [first, kinds = '', avro = ''] = row
  // a decimal's own comma, and that of a logical type, part nothing
  const saidKinds = kinds.split(/, (?![^(]*\))/)
  const found = types.map(([name, type]) => ({ name, kind: kindText(type), avro: avroText(type) }))
  for (const { name, kind } of found)
    expect(
      saidKinds.some((said) => names(said, kind)),
      `${first}: ${name} is ${kind}, not ${kinds}`,
    ).toBe(true)
  for (const said of saidKinds)
    expect(
      found.some(({ kind }) => names(said, kind)),
      `${first}: nothing is ${said}`,
    ).toBe(true)
  const distinct = [...new Set(found.map((one) => one.avro))]
  const saidAvro = distinct.every((text) => names(avro, text)) ? [avro] : avro.split(', ')
  for (const text of distinct)
    expect(
      saidAvro.some((said) => names(said, text)),
      `${first}: it is ${text}, not ${avro}`,
    ).toBe(true)
  for (const said of saidAvro)
    expect(
      distinct.some((text) => names(said, text)),
      `${first}: nothing is ${said}`,
    ).toBe(true)
}
