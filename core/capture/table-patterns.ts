import { MillraceError } from '../errors.ts'

/**
 * Which tables are captured: `schema.table` with `*` for any characters; a pattern that starts with `!` takes out again. A table is captured when
 * a plain pattern matches it and no `!` pattern does, in whatever order they stand. In a pattern with several dots each may be the one after the schema.
 */
export class TablePatterns {
  readonly #takes: readonly NamePattern[]
  readonly #leaves: readonly NamePattern[]

  /** @throws config.invalid */
  constructor(patterns: readonly string[]) {
    const bad = patterns.find((pattern) => !isTablePattern(pattern))
    if (bad !== undefined) {
      throw new MillraceError('config.invalid', `${JSON.stringify(bad)} is not a table pattern`, { fix: 'write schema.table, with * for any characters' })
    }
    this.#takes = patterns.filter((pattern) => !pattern.startsWith('!')).flatMap(namePatterns)
    this.#leaves = patterns.filter((pattern) => pattern.startsWith('!')).flatMap((pattern) => namePatterns(pattern.slice(1)))
  }

  matches(namespace: string, name: string): boolean {
    const fits = (pattern: NamePattern) => pattern.namespace.test(namespace) && pattern.name.test(name)
    return this.#takes.some(fits) && !this.#leaves.some(fits)
  }
}

export function isTablePattern(pattern: string): boolean {
  return /^!?[^.!]+\..+$/.test(pattern)
}

/** Of a schema's name and a table's: names may have dots themselves. */
interface NamePattern {
  readonly namespace: RegExp
  readonly name: RegExp
}

function namePatterns(pattern: string): readonly NamePattern[] {
  const parts = pattern.split('.')
  return parts.slice(1).map((_, n) => ({ namespace: expression(parts.slice(0, n + 1).join('.')), name: expression(parts.slice(n + 1).join('.')) }))
}

function expression(text: string): RegExp {
  const pieces = text.split('*').map((piece) => piece.replace(/[.+?^${}()|[\]\\]/g, '\\$&'))
  return new RegExp(`^${pieces.join('.*')}$`, 's')
}
