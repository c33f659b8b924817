/** Our medians beside the best that something else did in the same run. */
import type { Measurement } from './drain.ts'

/** What labels of others begin with. */
const OTHERS = ['debezium', 'pg_recvlogical', 'zongji'] as const
const FIGURES = [
  { figure: 'rowsPerSecond', more: true },
  { figure: 'cpuPerMillion', more: false },
  { figure: 'p99', more: false },
  { figure: 'firstRecordS', more: false },
] as const

export interface Ratio {
  readonly label: string
  readonly to: (typeof OTHERS)[number]
  readonly figure: (typeof FIGURES)[number]['figure']
  /** How many times better ours is. */
  readonly times: number
}

/** @param measurements of one benchmark */
export function ratios(measurements: readonly Measurement[]): readonly Ratio[] {
  const labels = [...new Set(measurements.map(({ label }) => label))].filter((label) => !OTHERS.some((other) => label.startsWith(other)))
  const valuesOf = (is: (label: string) => boolean, figure: Ratio['figure']) =>
    measurements
      .flatMap((measurement) =>
        is(measurement.label) && typeof measurement[figure] === 'number' && !Number.isNaN(measurement[figure]) ? [measurement[figure]] : [],
      )
      .sort((a, b) => a - b)
  return labels.flatMap((label) =>
    OTHERS.flatMap((to) =>
      FIGURES.flatMap(({ figure, more }): Ratio[] => {
        const ours = median(valuesOf((other) => other === label, figure))
        const best = valuesOf((other) => other.startsWith(to), figure).at(more ? -1 : 0)
        if (ours === undefined || best === undefined) return []
        return [{ label, to, figure, times: Math.round((more ? ours / best : best / ours) * 10) / 10 }]
      }),
    ),
  )
}

/** @param sorted ascending */
export function median(sorted: readonly number[]): number | undefined {
  return sorted[Math.floor(sorted.length / 2)]
}
