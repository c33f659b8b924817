/** CPU and memory of other processes, from Linux' /proc, and the time of the server they share. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import os from 'node:os'

const TICKS_PER_SECOND = 100

function stat(pid: number): string[] {
  const text = readFileSync(`/proc/${pid}/stat`, 'utf8')
  return text.slice(text.lastIndexOf(')') + 2).split(' ')
}

/** User and system seconds so far; 0 when the process is gone. */
export function cpuSeconds(pid: number): number {
  try {
    const fields = stat(pid)
    return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
  } catch {
    return 0
  }
}

/** Seconds of a process, of its children that ended, and of its living children. */
export function cpuSecondsOfTree(pid: number): number {
  let total = 0
  try {
    const fields = stat(pid)
    total += [11, 12, 13, 14].reduce((sum, i) => sum + Number(fields[i]), 0) / TICKS_PER_SECOND
  } catch {
    return 0
  }
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      const fields = stat(Number(entry))
      if (Number(fields[1]) === pid) total += (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
    } catch {
      // it ended meanwhile
    }
  }
  return total
}

export function peakRssMb(pid: number): number {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024
  } catch {
    return 0
  }
}

/** Forgets the peak so far. */
export function resetPeakRss(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5')
}

/** What `performance.now()` adds to for the time of day, to some microseconds. `timeOrigin` does not follow a clock that was set since the process began. */
export function epochOfMonotonicClock(): number {
  const before = Date.now()
  let now = before
  while (now === before) now = Date.now()
  return now - performance.now()
}

export function machine(): { readonly cpus: number; readonly model: string; readonly memoryGb: number; readonly node: string } {
  return { cpus: os.cpus().length, model: os.cpus()[0]?.model ?? '', memoryGb: Math.round(os.totalmem() / 2 ** 30), node: process.version }
}
