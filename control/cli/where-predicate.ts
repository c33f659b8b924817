import { MillraceError } from '../../core/errors.ts'
import type { Json } from '../../core/event/offset.ts'

export type Predicate = (row: { readonly [column: string]: Json }) => boolean

const TOKEN = /\s*(?:'((?:[^']|'')*)'|"((?:[^"]|"")*)"|(<=|>=|<>|!=|=|<|>)|([A-Za-z0-9_.+-]+))/y
const FIX = `write conditions such as status = 'paid' and amount >= 10 and note is not null`

interface Token {
  readonly kind: 'text' | 'name' | 'operator' | 'word'
  readonly text: string
}

type Operator = '=' | '!=' | '<' | '<=' | '>' | '>='

/**
 * Compiles `column operator literal`, joined by `and`; operators = != <> < <= > >=, `is null`, `is not null`. Texts stand in single quotes, odd column
 * names in double ones. Numbers compare exactly, whatever their size; a comparison with NULL, or with a column that is not there, is false.
 * @throws config.invalid
 */
export function compileWhere(text: string): { readonly columns: readonly string[]; readonly matches: Predicate } {
  const tokens = tokenize(text)
  const columns: string[] = []
  const conditions: Predicate[] = []
  let at = 0
  const isWord = (word: string) => tokens[at]?.kind === 'word' && tokens[at]!.text.toLowerCase() === word
  for (;;) {
    const column = tokens[at++]
    if (column === undefined || (column.kind !== 'word' && column.kind !== 'name')) throw wrong(text, 'a column name is missing')
    columns.push(column.text)
    if (isWord('is')) {
      at++
      const isNegated = isWord('not')
      if (isNegated) at++
      if (!isWord('null')) throw wrong(text, 'after `is` comes null or not null')
      at++
      conditions.push((row) => column.text in row && (row[column.text] === null) !== isNegated)
    } else {
      const operator = tokens[at++]
      if (operator?.kind !== 'operator') throw wrong(text, `after ${column.text} comes an operator`)
      const literal = tokens[at++]
      if (literal === undefined || (literal.kind !== 'word' && literal.kind !== 'text')) throw wrong(text, `after ${operator.text} comes a value`)
      if (literal.kind === 'word' && literal.text.toLowerCase() === 'null') throw wrong(text, 'nothing equals null: use is null')
      if (literal.kind === 'word' && !isNumber(literal.text) && !/^(true|false)$/i.test(literal.text))
        throw wrong(text, `${literal.text} stands without quotes`)
      conditions.push(comparison(column.text, (operator.text === '<>' ? '!=' : operator.text) as Operator, literal))
    }
    if (at === tokens.length) break
    if (!isWord('and')) throw wrong(text, `${tokens[at]!.text} is not understood; conditions are joined by and`)
    at++
  }
  return { columns, matches: (row) => conditions.every((condition) => condition(row)) }
}

function tokenize(text: string): Token[] {
  const tokens: Token[] = []
  TOKEN.lastIndex = 0
  const end = text.trimEnd().length
  for (let from = 0; from < end; from = TOKEN.lastIndex) {
    TOKEN.lastIndex = from
    const match = TOKEN.exec(text)
    if (match === null) throw wrong(text, `it is not understood from: ${text.slice(from).trim()}`)
    const [, quoted, name, operator, word] = match
    if (quoted !== undefined) tokens.push({ kind: 'text', text: quoted.replaceAll("''", "'") })
    else if (name !== undefined) tokens.push({ kind: 'name', text: name.replaceAll('""', '"') })
    else if (operator !== undefined) tokens.push({ kind: 'operator', text: operator })
    else tokens.push({ kind: 'word', text: word! })
  }
  return tokens
}

function comparison(column: string, operator: Operator, literal: Token): Predicate {
  const wanted: string | number | boolean =
    literal.kind === 'word' && /^(true|false)$/i.test(literal.text) ? literal.text.toLowerCase() === 'true' : literal.text
  return (row) => {
    const value = row[column]
    if (value === null || value === undefined) return false
    const order = compare(value, wanted, literal.kind === 'word')
    if (order === null) return operator === '!='
    return { '=': order === 0, '!=': order !== 0, '<': order < 0, '<=': order <= 0, '>': order > 0, '>=': order >= 0 }[operator]
  }
}

/** Null when the two are of kinds that have no order. */
function compare(value: Json, wanted: string | boolean, isBare: boolean): number | null {
  if (typeof wanted === 'boolean') return typeof value === 'boolean' ? Number(value) - Number(wanted) : null
  if (typeof value === 'object' || typeof value === 'boolean') return null
  const text = String(value)
  if (isBare) return isNumber(text) ? compareNumbers(text, wanted) : null
  return text === wanted ? 0 : text < wanted ? -1 : 1
}

function isNumber(text: string): boolean {
  return /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,3})?$/i.test(text)
}

function compareNumbers(a: string, b: string): number {
  const [left, right] = [parseDecimal(a), parseDecimal(b)]
  const scale = Math.max(left.scale, right.scale)
  const [x, y] = [left.unscaled * 10n ** BigInt(scale - left.scale), right.unscaled * 10n ** BigInt(scale - right.scale)]
  return x === y ? 0 : x < y ? -1 : 1
}

function parseDecimal(text: string): { readonly unscaled: bigint; readonly scale: number } {
  const [mantissa, exponent = '0'] = text.toLowerCase().replace(/^\+/, '').split('e')
  const [whole = '', fraction = ''] = mantissa!.split('.')
  const scale = fraction.length - Number(exponent)
  const unscaled = BigInt(`${whole === '-' ? '-0' : whole}${fraction}`)
  return scale < 0 ? { unscaled: unscaled * 10n ** BigInt(-scale), scale: 0 } : { unscaled, scale }
}

function wrong(text: string, why: string): MillraceError {
  return new MillraceError('config.invalid', `--where ${text}: ${why}`, { fix: FIX })
}
