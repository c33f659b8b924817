import { CAPTURED_WINDOWS, capturedLedgers, type TallyJson, WindowLedger, windowStart } from '../event/window-ledger.ts'
import type { Log, LogPosition } from '../log/log.ts'
import type { LandedWindows } from '../materialize/landed-windows.ts'
import { compareWindows, deltaOf, describeCounts, describeDelta, describeTally, type Windowed, type WindowPair } from './window-compare.ts'

/** What a source has made durable of a stream, as its process knows it. */
export interface CapturedStream {
  /** The source. */
  readonly node: string
  readonly topic: string
  readonly compacted: boolean
  /** The same object while nothing changes. */
  readonly windows: Windowed
}

/** What became of a stream in one sink. */
export interface LandedStream {
  readonly sink: string
  readonly topic: string
  /** Null: not known yet. */
  readonly held: { readonly positions: readonly LogPosition[] /** Null: the target does not say. */; readonly windows: LandedWindows | null } | null
}

/** A window of a stream that is not the same in a sink as it was captured. */
export interface WindowDifference {
  readonly sink: string
  readonly stream: string
  /** Epoch milliseconds; null: all before `untilMs`. */
  readonly fromMs: number | null
  readonly untilMs: number
  /** Counts by op, and the sum over the records' content. What was captured landed, or was rejected, or superseded by the snapshot. */
  readonly captured: TallyJson
  readonly landed: TallyJson
  readonly rejected: TallyJson
  readonly superseded: TallyJson
  /** "1 insert missing" */
  readonly difference: string
}

export interface AuditStatus {
  /** Up to when everything captured is known to have landed, or is among the differences; null: nothing was compared yet. Epoch milliseconds. */
  readonly throughMs: number | null
  readonly differences: readonly WindowDifference[]
  /** Streams of sinks whose target does not say what landed: "sink stream". */
  readonly uncounted: readonly string[]
}

/** Of each stream in each sink so many differences that are there no more are remembered, since one may be open for a while and then there again. */
const REMEMBERED = 100
/** A window whose difference keeps changing is told so often at most. */
const TELL_AGAIN_MS = 60_000

/** What was told of a stream in a sink. */
interface Told {
  /** Deltas, the one seen last at the end. */
  readonly deltas: Set<string>
  /** By window: when its difference was told last, the delta seen last, and how many others were there since then that were not told. */
  readonly windows: Map<number | null, { readonly at: number; delta: string; untold: number }>
}

type Ends = Awaited<ReturnType<Log['bounds']>>

interface Look {
  readonly at: number
  readonly captured: Windowed
  /** Where the log ended after `captured` was read. */
  readonly ends: Ends
}

interface Pair {
  /** Waits until the sink has all that it counts. */
  look: Look | null
  /** What was compared last, when nothing was open: while both stay the same, so does the result. */
  rested: { readonly captured: Windowed; readonly windows: LandedWindows } | null
  throughMs: number | null
  /** Deltas of the differences, by window. */
  deltas: ReadonlyMap<number | null, string>
  differences: readonly WindowDifference[]
}

/**
 * Compares windows as they come to rest, while everything runs: what sources made durable with what landed in each sink or was rejected by it. Looks at
 * counters in memory; the log is asked where it ends, and for its progress only before a difference counts. What is told once is not told again while it is
 * there, nor soon after; a window whose difference keeps changing is told at most once a minute.
 */
export class ContinuousAudit {
  readonly #log: Pick<Log, 'bounds' | 'progress'>
  readonly #pairs = new Map<string, Pair>()
  readonly #told = new Map<string, Told>()
  readonly #onDifference: (difference: WindowDifference, untold: number) => void
  #uncounted: readonly string[] = []

  /** @param onDifference `untold`: how many other differences the window had since it was told last */
  constructor(log: Pick<Log, 'bounds' | 'progress'>, onDifference: (difference: WindowDifference, untold: number) => void) {
    this.#log = log
    this.#onDifference = onDifference
  }

  get status(): AuditStatus {
    const pairs = [...this.#pairs.values()]
    const through = pairs.map(({ throughMs }) => throughMs)
    const isKnown = pairs.length > 0 && through.every((ms) => ms !== null)
    return {
      throughMs: isKnown ? Math.min(...(through as number[])) : null,
      differences: pairs.flatMap(({ differences }) => differences),
      uncounted: this.#uncounted,
    }
  }

  /** One look. `captured` and `landed` are of the moment `now`. */
  async look(captured: ReadonlyMap<string, CapturedStream>, landed: readonly LandedStream[], now: number): Promise<void> {
    this.#uncounted = landed.filter(({ held }) => held?.windows === null).map(({ sink, topic }) => `${sink} ${topic}`)
    const looks = new Map<string, Look>()
    for (const stream of landed) {
      const source = captured.get(stream.topic)
      const windows = stream.held?.windows
      if (windows === null) this.#pairs.delete(pairKey(stream))
      if (source === undefined || windows === null) continue
      const pair = this.#pair(stream)
      if (stream.held != null && windows !== undefined) await this.#judge(pair, source, { ...stream, positions: stream.held.positions, windows }, now)
      // also without a new judgement: what was held back is due some time
      this.#tell(pairKey(stream), pair, now)
      if (pair.look !== null) continue
      let look = looks.get(stream.topic)
      if (look === undefined) {
        // asked after the windows were read: the ends are those of all that they count, or later
        look = { at: now, captured: source.windows, ends: await this.#log.bounds(stream.topic) }
        looks.set(stream.topic, look)
      }
      pair.look = look
    }
  }

  #pair(stream: LandedStream): Pair {
    const key = pairKey(stream)
    let pair = this.#pairs.get(key)
    if (pair === undefined) this.#pairs.set(key, (pair = { look: null, rested: null, throughMs: null, deltas: new Map(), differences: [] }))
    return pair
  }

  async #judge(pair: Pair, source: CapturedStream, stream: CountedStream, now: number): Promise<void> {
    const { rested, look } = pair
    const { windows } = stream
    if (rested !== null && rested.captured === source.windows && rested.windows === windows) {
      pair.throughMs = now
      return
    }
    if (look === null || !reachesEnds(stream.positions, look.ends)) return
    let compared = compareWindows(look.captured, source.windows, windows, source)
    // I11: a batch can be read before its writer knows that it landed, so the log says what was captured before anyone is alarmed
    if (compared.different.some((of) => pair.deltas.get(of.window) !== deltaOf(of))) {
      compared = compareWindows(look.captured, await this.#durable(source), windows, source)
    }
    const { different, open } = compared
    pair.differences = different.map((window) => differenceOf(stream, window))
    pair.deltas = new Map(different.map((of) => [of.window, deltaOf(of)]))
    const firstOpen = open.length === 0 ? look.at : Math.min(...open.map(({ window }) => windowStart(window ?? 0)))
    pair.throughMs = Math.max(pair.throughMs ?? 0, Math.min(look.at, firstOpen))
    pair.rested = open.length === 0 && look.captured === source.windows ? { captured: source.windows, windows } : null
    pair.look = null
  }

  async #durable({ node, topic }: CapturedStream): Promise<Windowed> {
    return capturedLedgers(await this.#log.progress(node)).get(topic) ?? new WindowLedger(CAPTURED_WINDOWS)
  }

  /** Deltas are told without their windows: a difference stays the same when its window joins those that are no longer kept apart. */
  #tell(key: string, { deltas, differences }: Pair, now: number): void {
    if (differences.length === 0 && !this.#told.has(key)) return
    const told: Told = this.#told.get(key) ?? { deltas: new Set(), windows: new Map() }
    this.#told.set(key, told)
    for (const [i, [window, delta]] of [...deltas].entries()) this.#tellWindow(told, window, delta, differences[i]!, now)
    for (const delta of told.deltas) {
      if (told.deltas.size <= deltas.size + REMEMBERED) break
      told.deltas.delete(delta)
    }
    for (const [window, { at }] of told.windows) if (!deltas.has(window) && now - at >= TELL_AGAIN_MS) told.windows.delete(window)
  }

  #tellWindow({ deltas, windows }: Told, window: number | null, delta: string, difference: WindowDifference, now: number): void {
    if (!deltas.delete(delta)) {
      const last = windows.get(window)
      if (last !== undefined && now - last.at < TELL_AGAIN_MS) {
        if (last.delta !== delta) last.untold++
        last.delta = delta
        return
      }
      const untold = last?.untold ?? 0
      // the one that is told now may be among them
      this.#onDifference(difference, last?.delta === delta ? Math.max(0, untold - 1) : untold)
      windows.set(window, { at: now, delta, untold: 0 })
    }
    deltas.add(delta)
  }
}

function pairKey({ sink, topic }: LandedStream): string {
  return `${sink} ${topic}`
}

interface CountedStream extends LandedStream {
  readonly positions: readonly LogPosition[]
  readonly windows: LandedWindows
}

function differenceOf(stream: CountedStream, pair: WindowPair): WindowDifference {
  const { window, until } = pair
  const { windows } = stream
  const part = (of: Windowed) => (window === null ? of.totalBelow(until) : of.at(window)).toJSON()
  return {
    sink: stream.sink,
    stream: stream.topic,
    fromMs: window === null ? null : windowStart(window),
    untilMs: windowStart(until),
    captured: pair.captured.toJSON(),
    landed: part(windows.landed),
    rejected: part(windows.rejected),
    superseded: part(windows.superseded),
    difference: describeDelta(pair),
  }
}

/** "2026-11-25 12:03–12:04" in UTC. */
export function describeWindow({ fromMs, untilMs }: Pick<WindowDifference, 'fromMs' | 'untilMs'>): string {
  const minute = (ms: number) => new Date(ms).toISOString().slice(0, 16).replace('T', ' ')
  return fromMs === null ? `before ${minute(untilMs)}` : `${minute(fromMs)}–${minute(untilMs).slice(11)}`
}

/** One sentence for logs and people. */
export function describeDifference(difference: WindowDifference): string {
  const { sink, stream, captured, landed, rejected } = difference
  const counts = `captured ${describeTally(captured)}, landed ${describeTally(landed)}, rejected ${describeCounts(rejected)}`
  return `${stream}, ${describeWindow(difference)} UTC, in ${sink}: ${difference.difference}; ${counts}`
}

/** All that was in the log is behind these positions. */
export function reachesEnds(positions: readonly LogPosition[], ends: Ends): boolean {
  return ends.every(({ partition, end }) => end === 0n || positions.some((position) => position.partition === partition && position.offset >= end))
}
