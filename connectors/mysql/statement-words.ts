/** How the session that ran a statement read quotes in it. */
export interface Quoting {
  /** `"a\b"` is a name, without escapes. */
  readonly ansiQuotes: boolean
  /** A backslash within quotes is itself. */
  readonly noBackslashEscapes: boolean
  /** U+00A0 is white space, as in character sets of one byte; in others it is a letter. */
  readonly nbspIsSpace: boolean
}

export interface Word {
  /** A `word` may be a keyword, a `name` is quoted by backticks, double quotes or brackets, `text` by single ones; a `sign` is any other character. */
  readonly kind: 'word' | 'name' | 'text' | 'sign'
  /** Of a word in lower case, too; of what was quoted without its quotes. */
  readonly text: string
  /** As the statement has it. */
  readonly raw: string
}

/** White space is ASCII's: others are letters to servers. */
const SPACE_OR_WORD = /[\t-\r ]+|[0-9A-Za-z_$\u0080-\uffff]+/y
const WITH_NBSP = /[\t-\r \u00a0]+|[0-9A-Za-z_$\u0080-\u009f\u00a1-\uffff]+/y

/** The words of a statement, without comments; of comments that servers run, those within. Never fails: what is not closed ends with the text. */
export function* wordsOf(text: string, { ansiQuotes, noBackslashEscapes, nbspIsSpace }: Quoting): Generator<Word, undefined> {
  const spaceOrWord = nbspIsSpace ? WITH_NBSP : SPACE_OR_WORD
  for (let at = 0; at < text.length; ) {
    spaceOrWord.lastIndex = at
    const raw = spaceOrWord.exec(text)?.[0]
    if (raw !== undefined) {
      at += raw.length
      if (raw[0]! > ' ' && !(nbspIsSpace && raw[0] === '\u00a0')) yield { kind: 'word', text: raw.toLowerCase(), raw }
      continue
    }
    const char = text[at]!
    const comment = commentEnd(text, at)
    if (comment > at) at = comment
    else if (char === '`' || char === "'" || char === '"' || char === '[') {
      const escapes = char === '`' || char === '[' || noBackslashEscapes || (char === '"' && ansiQuotes) ? '' : '\\'
      // brackets stand in a statement in MariaDB's sql_mode MSSQL only
      const quote = char === '[' ? ']' : char
      const end = quotedEnd(text, at, quote, escapes)
      const inner = text.slice(at + 1, end - 1).replaceAll(quote + quote, quote)
      yield { kind: char === "'" ? 'text' : 'name', text: inner, raw: inner }
      at = end
    } else {
      yield { kind: 'sign', text: char, raw: char }
      at++
    }
  }
  return undefined
}

/** Where the comment that begins here, or the mark around one that servers run, ends; `at` itself: there is none. */
function commentEnd(text: string, at: number): number {
  const after = (found: number, length: number) => (found < 0 ? text.length : found + length)
  if (text.startsWith('*/', at)) return at + 2
  if (text.startsWith('/*', at)) {
    const run = /^\/\*M?!(?:\d{5,6})?/.exec(text.slice(at, at + 12))?.[0]
    return run === undefined ? after(text.indexOf('*/', at + 2), 2) : at + run.length
  }
  const isLine = text[at] === '#' || (text.startsWith('--', at) && (at + 2 === text.length || text[at + 2]! <= ' '))
  return isLine ? after(text.indexOf('\n', at), 1) : at
}

function quotedEnd(text: string, from: number, quote: string, escapes: string): number {
  for (let at = from + 1; at < text.length; at++) {
    const char = text[at]!
    if (char === escapes) at++
    else if (char === quote) {
      if (text[at + 1] !== quote) return at + 1
      at++
    }
  }
  return text.length + 1
}
