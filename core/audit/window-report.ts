import { type TallyJson, windowStart } from '../event/window-ledger.ts'
import type { LandedWindows } from '../materialize/landed-windows.ts'
import { compareWindows, describeDelta, type Windowed, type WindowPair } from './window-compare.ts'

/** One window of a stream, where it was captured and in one sink. */
export interface ReportedWindow {
  /** Epoch milliseconds of commit time; null: all before `untilMs`. */
  readonly fromMs: number | null
  readonly untilMs: number
  /** open: it takes changes just now, or the sink has not read all of the stream. */
  readonly state: 'equal' | 'different' | 'open'
  readonly captured: TallyJson
  /** What became of them: all three together are what was captured, when equal. */
  readonly landed: TallyJson
  readonly rejected: TallyJson
  readonly superseded: TallyJson
  /** "1 insert missing"; null when equal. */
  readonly difference: string | null
}

/**
 * All windows of a stream, oldest first.
 * @param captured before and after `landed` was read
 * @param options.through whether the sink had come to where the stream ended after `captured.before` was read
 */
export function reportWindows(
  captured: { readonly before: Windowed; readonly after: Windowed },
  landed: LandedWindows,
  options: { readonly through: boolean; readonly compacted: boolean },
): readonly ReportedWindow[] {
  const { equal, different, open } = compareWindows(captured.before, captured.after, landed, options)
  const report =
    (state: ReportedWindow['state']) =>
    (pair: WindowPair): ReportedWindow => {
      const part = (of: Windowed) => (pair.window === null ? of.totalBelow(pair.until) : of.at(pair.window)).toJSON()
      return {
        fromMs: pair.window === null ? null : windowStart(pair.window),
        untilMs: windowStart(pair.until),
        state,
        captured: pair.captured.toJSON(),
        landed: part(landed.landed),
        rejected: part(landed.rejected),
        superseded: part(landed.superseded),
        difference: state === 'equal' || pair.captured.equals(pair.found) ? null : describeDelta(pair),
      }
    }
  const windows = [...equal.map(report('equal')), ...different.map(report(options.through ? 'different' : 'open')), ...open.map(report('open'))]
  return windows.sort((a, b) => a.untilMs - b.untilMs)
}
