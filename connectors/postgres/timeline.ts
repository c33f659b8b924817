import { parseLsn } from './lsn.ts'

/** A timeline that the server's own descends from, and where it was left for the next one. */
export interface Ancestor {
  readonly timeline: number
  readonly end: bigint
}

/** The ancestors named in a timeline history file: per line the timeline, where it ended, and why; `#` begins a comment. */
export function parseTimelineHistory(text: string): readonly Ancestor[] {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*(\d+)\s+([0-9A-Fa-f]+\/[0-9A-Fa-f]+)/.exec(line)
    return match === null ? [] : [{ timeline: Number(match[1]), end: parseLsn(match[2]!) }]
  })
}
