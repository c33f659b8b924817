/** Property tests take the same cases in every run, so that it tells of the change and not of luck. `MILLRACE_SEED=random`, or a number, takes others. */
import fc from 'fast-check'

const seed = process.env.MILLRACE_SEED ?? '20261126'
if (seed !== 'random') fc.configureGlobal({ seed: Number(seed) })
