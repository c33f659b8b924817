import type { ChildProcess } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'

export interface StartingServer {
  /** For the message. */
  readonly name: string
  /** Where it writes what goes wrong. */
  readonly log: string
  readonly patienceMs: number
  /** Whether it serves already; an error means that it does not yet. */
  readonly answers: () => Promise<boolean>
}

/** Waits for a server that was started. @throws with the end of its log when it ended, or did not answer in time and was killed for it */
export async function untilAnswering(child: ChildProcess, { name, log, patienceMs, answers }: StartingServer): Promise<void> {
  let error: unknown = null
  for (const deadline = performance.now() + patienceMs; ; await delay(50)) {
    const answered = await answers().catch((thrown: unknown) => {
      error = thrown
      return false
    })
    if (answered) return
    const isOver = child.exitCode !== null || child.signalCode !== null
    if (!isOver && performance.now() <= deadline) continue
    child.kill('SIGKILL')
    const tail = existsSync(log) ? readFileSync(log, 'utf8').slice(-4000) : ''
    throw new Error(`${name} did not start (exit ${child.exitCode}): ${error === null ? '' : String(error)}\n${tail}`)
  }
}
