import type { Cell } from './column-types.ts'

/** Why a line is none; without its content, which may be secret. */
export class BadLine extends Error {}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export function textOf(line: Buffer): string {
  try {
    return utf8.decode(line)
  } catch {
    throw new BadLine('it is not UTF-8')
  }
}

/** The members of a JSON object, in its order, as written; NULL as null. @throws BadLine */
export function jsonMembers(text: string): Map<string, Cell | null> {
  let whole: unknown
  try {
    whole = JSON.parse(text)
  } catch {
    throw new BadLine('it is not JSON')
  }
  if (typeof whole !== 'object' || whole === null || Array.isArray(whole)) throw new BadLine('it is not a JSON object')
  const members = new Map<string, Cell | null>()
  // it is valid from here on
  let at = text.indexOf('{') + 1
  for (;;) {
    at = skipSpace(text, at)
    if (text[at] === '}') return members
    if (text[at] === ',') at = skipSpace(text, at + 1)
    const nameEnd = stringEnd(text, at)
    const name = JSON.parse(text.slice(at, nameEnd)) as string
    if (members.has(name)) throw new BadLine(`it has ${JSON.stringify(name)} twice`)
    const from = skipSpace(text, skipSpace(text, nameEnd) + 1)
    at = valueEnd(text, from)
    members.set(name, cellOf(text.slice(from, at)))
  }
}

function cellOf(text: string): Cell | null {
  switch (text[0]) {
    case '"':
      return { kind: 'text', text: JSON.parse(text) as string }
    case '{':
    case '[':
      return { kind: 'nested', text }
    case 't':
    case 'f':
      return { kind: 'boolean', text }
    case 'n':
      return null
    default:
      return { kind: 'number', text }
  }
}

function skipSpace(text: string, at: number): number {
  while (text[at] === ' ' || text[at] === '\t' || text[at] === '\r' || text[at] === '\n') at++
  return at
}

/** `at` is the opening quote. */
function stringEnd(text: string, at: number): number {
  for (let i = at + 1; ; i++) {
    if (text[i] === '\\') i++
    else if (text[i] === '"') return i + 1
  }
}

function valueEnd(text: string, at: number): number {
  if (text[at] === '"') return stringEnd(text, at)
  let depth = 0
  for (let i = at; ; i++) {
    const letter = text[i]
    if (letter === '"') i = stringEnd(text, i) - 1
    else if (letter === '{' || letter === '[') depth++
    else if ((letter === '}' || letter === ']') && depth > 0) {
      if (--depth === 0) return i + 1
    } else if (depth === 0 && (letter === ',' || letter === '}' || /\s/.test(letter!))) return i
  }
}

/** The cells of a CSV record of one line (RFC 4180 quotes); null for one without quotes that says `none`. @throws BadLine */
export function csvCells(text: string, separator: string, none: string | null): (string | null)[] {
  const cells: (string | null)[] = []
  let at = 0
  for (;;) {
    if (text[at] === '"') {
      let cell = ''
      let from = at + 1
      for (;;) {
        const quote = text.indexOf('"', from)
        if (quote < 0) throw new BadLine('a quoted cell does not end in its line')
        cell += text.slice(from, quote)
        at = quote + 1
        if (text[at] !== '"') break
        cell += '"'
        from = at + 1
      }
      cells.push(cell)
      if (at < text.length && text[at] !== separator) throw new BadLine('something follows the closing quote of a cell')
    } else {
      const next = text.indexOf(separator, at)
      const cell = text.slice(at, next < 0 ? text.length : next)
      if (cell.includes('"')) throw new BadLine('a quote stands within a cell without quotes')
      cells.push(cell === none ? null : cell)
      at = next < 0 ? text.length : next
    }
    if (at >= text.length) return cells
    at++
  }
}
