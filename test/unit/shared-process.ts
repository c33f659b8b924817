/** Runs before each file of unit tests that share a process, and fails the file that leaves it otherwise than it was: name that one `*.isolated.test.ts`. */
import fc from 'fast-check'
import { afterAll, expect } from 'vitest'

const before = processState()

afterAll(() => expect(processState(), 'the process as this file leaves it, beside what it was').toEqual(before))

/** What a test may change for those after it. Listeners and new globals are not: packages that are loaded first leave some, once. */
export function processState(): object {
  return {
    cwd: process.cwd(),
    env: { ...process.env },
    exitCode: process.exitCode,
    clock: [Date, Date.now, performance.now, setTimeout, setInterval, setImmediate],
    chance: [Math.random, fc.readConfigureGlobal()],
    web: [fetch, WebSocket],
    output: [process.stdout.write, process.stderr.write],
  }
}
