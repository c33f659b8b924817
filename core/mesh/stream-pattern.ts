/**
 * Which streams a sink takes: `shop` (all of a source), `shop.public.orders`, `shop.public.*`, `!shop.public.tmp_*`. A stream is taken when a
 * pattern names it and none with `!` does, whatever their order. `*` stands for any characters.
 */
export interface StreamFilter {
  readonly patterns: readonly string[]
  matches(topic: string): boolean
}

export function compileStreamFilter(patterns: readonly string[]): StreamFilter {
  const wanted: RegExp[] = []
  const unwanted: RegExp[] = []
  for (const pattern of patterns) {
    if (pattern.startsWith('!')) unwanted.push(regexOf(pattern.slice(1)))
    else wanted.push(regexOf(pattern))
  }
  return { patterns, matches: (topic) => wanted.some((r) => r.test(topic)) && !unwanted.some((r) => r.test(topic)) }
}

/** The source node that a pattern names. */
export function nodeOfPattern(pattern: string): string {
  const text = pattern.startsWith('!') ? pattern.slice(1) : pattern
  const dot = text.indexOf('.')
  return dot < 0 ? text : text.slice(0, dot)
}

/** A bare node name stands for all its streams. */
function regexOf(pattern: string): RegExp {
  const glob = pattern.includes('.') ? pattern : `${pattern}.*`
  return new RegExp(`^${glob.split(/\*+/).map(escapeRegex).join('.*')}$`, 's')
}

function escapeRegex(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
