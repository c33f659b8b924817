/** Points of a mesh's life that a seed decides. */
import { setTimeout as delay } from 'node:timers/promises'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import type { MeshProcess } from '../services/mesh-process.ts'

/** From when all sources are at work: how long a slow machine takes to start decides nothing. */
const LONGEST_ROUND_MS = 2500

export class RandomKills {
  #state: number
  /** Kills while tables were read, and while all were. */
  inSnapshot = 0
  inStream = 0

  constructor(seed: number) {
    this.#state = seed
  }

  /** Kills a mesh that was started: soon after the start, in the middle of a burst, or while it only follows; at most about so many rows further. */
  async kill(mesh: MeshProcess, mostRows: number): Promise<void> {
    const after = this.#random(3) === 0 ? this.#random(5) : this.#random(mostRows)
    const first = await mesh.until('answering', () => true)
    const goal = moved(first) + after
    let workedAt = Number.POSITIVE_INFINITY
    const last = await mesh.until(`${after} rows further`, (status) => {
      const now = performance.now()
      if (isAtWork(status)) workedAt = Math.min(workedAt, now)
      return moved(status) >= goal || now - workedAt > LONGEST_ROUND_MS
    })
    for (let turns = this.#random(6); turns > 0; turns--) await delay(0)
    await mesh.kill()
    if (last.nodes.some(({ snapshot }) => snapshot.some(({ done }) => !done))) this.inSnapshot++
    else this.inStream++
  }

  #random(below: number): number {
    this.#state = (Math.imul(this.#state, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((this.#state / 4_294_967_296) * below)
  }
}

function isAtWork(status: MeshStatus): boolean {
  return status.nodes.every(({ role, state }) => role === 'sink' || (state !== 'starting' && state !== 'degraded'))
}

/** Everything that moves: rows of sources and sinks, rows read by snapshots. */
function moved(status: MeshStatus): number {
  return status.nodes.reduce((sum, { rows, snapshot }) => sum + rows + snapshot.reduce((read, table) => read + table.rows, 0), 0)
}
