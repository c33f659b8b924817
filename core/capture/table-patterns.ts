import { MillraceError } from '../errors.ts'

/**
 * Which tables are captured: `schema.table` with `*` for any characters; a pattern that starts with `!` takes out again. A table is captured when
 * a plain pattern matches it and no `!` pattern does, in whatever order they stand.
 */
export class TablePatterns {
  readonly #takes: readonly RegExp[]
  readonly #leaves: readonly RegExp[]

  /** @throws config.invalid */
  constructor(patterns: readonly string[]) {
    const bad = patterns.find((pattern) => !isTablePattern(pattern))
    if (bad !== undefined) {
      throw new MillraceError('config.invalid', `${JSON.stringify(bad)} is not a table pattern`, { fix: 'write schema.table, with * for any characters' })
    }
    this.#takes = patterns.filter((pattern) => !pattern.startsWith('!')).map(expression)
    this.#leaves = patterns.filter((pattern) => pattern.startsWith('!')).map((pattern) => expression(pattern.slice(1)))
  }

  matches(namespace: string, name: string): boolean {
    const id = `${namespace}.${name}`
    return this.#takes.some((take) => take.test(id)) && !this.#leaves.some((leave) => leave.test(id))
  }
}

export function isTablePattern(pattern: string): boolean {
  return /^!?[^.!]+\..+$/.test(pattern)
}

function expression(pattern: string): RegExp {
  const dot = pattern.indexOf('.')
  return new RegExp(`^${part(pattern.slice(0, dot), '[^.]*')}\\.${part(pattern.slice(dot + 1), '.*')}$`, 's')
}

function part(text: string, any: string): string {
  return text
    .split('*')
    .map((piece) => piece.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
    .join(any)
}
