/**
 * Property tests take the same cases in every run, so that it tells of the change and not of luck. `MILLRACE_SEED=random`, or a number, takes others.
 * `MILLRACE_RUNS=few` (`npm run check`) takes the first fifth of the cases of long ones; all other ways to run them, CI too, take all.
 */
import fc from 'fast-check'

const seed = process.env.MILLRACE_SEED ?? '20261126'
if (seed !== 'random') fc.configureGlobal({ seed: Number(seed) })

/** How many cases of a long property test to take, of all that it has. */
export function runs(all: number): number {
  return process.env.MILLRACE_RUNS === 'few' ? Math.ceil(all / 5) : all
}
