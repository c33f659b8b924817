/** JSON that is taken apart without being changed: numbers keep their digits, documents their text. */

export interface Token {
  readonly kind: 'object' | 'array' | 'string' | 'number' | 'boolean' | 'null'
  /** As it stands in the document. */
  readonly raw: string
}

/** The text is no JSON; `at` is the character where that shows, from 0. */
export class NoJson extends Error {
  readonly at: number
  constructor(expected: string, at: number) {
    super(`${expected} was expected at character ${at}`)
    this.at = at
  }
}

/** The members of an object, by name. @throws NoJson for anything else, and for a name that comes twice */
export function members(text: string): ReadonlyMap<string, Token> {
  const scan = new Scanner(text)
  const found = new Map<string, Token>()
  scan.object((name, token, at) => {
    if (found.has(name)) throw new NoJson('a name that was not there yet', at)
    found.set(name, token())
  })
  scan.end()
  return found
}

/** The elements of an array. @throws NoJson for anything else */
export function elements(text: string): readonly Token[] {
  const scan = new Scanner(text)
  const found: Token[] = []
  scan.array((token) => found.push(token()))
  scan.end()
  return found
}

/** The characters of a string token. */
export function textOf(token: Token): string {
  return JSON.parse(token.raw) as string
}

/** What CockroachDB writes for a DECIMAL or FLOAT that JSON has no number for. */
const BEYOND_JSON = /(?:NaN|-?Infinity)/y
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const SPACE = /[ \t\n\r]*/y
const MOST_DEPTH = 512

class Scanner {
  readonly #text: string
  #at = 0
  #depth = 0

  constructor(text: string) {
    this.#text = text
  }

  #take(pattern: RegExp): string | null {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)
    if (found === null) return null
    this.#at = pattern.lastIndex
    return found[0]
  }

  /** A string, whatever its length; null: there is none. */
  #string(): string | null {
    const text = this.#text
    if (text[this.#at] !== '"') return null
    let end = this.#at
    for (let escapes = 1; escapes % 2 === 1; ) {
      end = text.indexOf('"', end + 1)
      if (end < 0) return null
      for (escapes = 0; text[end - 1 - escapes] === '\\'; ) escapes++
    }
    const raw = text.slice(this.#at, end + 1)
    try {
      JSON.parse(raw)
    } catch {
      return null
    }
    this.#at = end + 1
    return raw
  }

  #skip(character: string): boolean {
    this.#take(SPACE)
    if (this.#text[this.#at] !== character) return false
    this.#at++
    return true
  }

  #expect(character: string): void {
    if (!this.#skip(character)) throw new NoJson(character, this.#at)
  }

  end(): void {
    this.#take(SPACE)
    if (this.#at !== this.#text.length) throw new NoJson('the end', this.#at)
  }

  object(member: (name: string, value: () => Token, at: number) => void): void {
    this.#expect('{')
    if (this.#skip('}')) return
    do {
      this.#take(SPACE)
      const at = this.#at
      const name = this.#string()
      if (name === null) throw new NoJson('a name', at)
      this.#expect(':')
      member(JSON.parse(name) as string, () => this.#value(), at)
    } while (this.#skip(','))
    this.#expect('}')
  }

  array(element: (value: () => Token) => void): void {
    this.#expect('[')
    if (this.#skip(']')) return
    do element(() => this.#value())
    while (this.#skip(','))
    this.#expect(']')
  }

  #value(): Token {
    this.#take(SPACE)
    const from = this.#at
    const kind = this.#kind()
    return { kind, raw: this.#text.slice(from, this.#at) }
  }

  #kind(): Token['kind'] {
    const first = this.#text[this.#at]
    if (first === '{' || first === '[') {
      if (++this.#depth > MOST_DEPTH) throw new NoJson(`a depth of at most ${MOST_DEPTH}`, this.#at)
      if (first === '{') this.object((_, value) => value())
      else this.array((value) => value())
      this.#depth--
      return first === '{' ? 'object' : 'array'
    }
    if (first === '"' && this.#string() !== null) return 'string'
    for (const [literal, kind] of [
      ['true', 'boolean'],
      ['false', 'boolean'],
      ['null', 'null'],
    ] as const) {
      if (!this.#text.startsWith(literal, this.#at)) continue
      this.#at += literal.length
      return kind
    }
    if (this.#take(BEYOND_JSON) !== null || this.#take(NUMBER) !== null) return 'number'
    throw new NoJson('a value', this.#at)
  }
}
