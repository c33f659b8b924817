/** A hybrid logical clock's time: nanoseconds since 1970, and a counter within one of them. */
export interface Hlc {
  readonly wall: bigint
  readonly logical: number
}

/** `1701102296662969433.0000000000`, as changefeeds and `cluster_logical_timestamp()` write it; null: it is none. */
export function parseHlc(text: string): Hlc | null {
  const [, wall, logical = '0'] = /^(\d{1,19})(?:\.(\d{10}))?$/.exec(text) ?? []
  if (wall === undefined || BigInt(wall) > 0x7fff_ffff_ffff_ffffn || Number(logical) > 0x7fff_ffff) return null
  return { wall: BigInt(wall), logical: Number(logical) }
}

/** The last instant of a nanosecond: a view AS OF it has all of the nanosecond, a changefeed with this cursor gives what comes after. */
export function endOf(wall: bigint): string {
  return `${wall}.2147483647`
}
