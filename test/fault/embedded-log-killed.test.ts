import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, expect, test } from 'vitest'
import { openEmbeddedLog } from '../../core/log/embedded/embedded-log.ts'
import type { Log } from '../../core/log/log.ts'
import { readCount, readUntil, startOf } from '../../testing/log.contract.ts'
import { latestOf, PARTITIONS, valuesOf } from './known-batches.ts'

const ROUNDS = 30
/** What the writer appends after the acknowledgement at which it is killed, when we are slow to do it. */
const MOST_MORE = 500
const root = mkdtempSync(path.join(os.tmpdir(), 'millrace-killed-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

/** Deterministic numbers in [0, 1). */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state * 1664525 + 1013904223) % 2 ** 32
    return state / 2 ** 32
  }
}

/** Runs the writer until it has had `acknowledgements` of them, kills it at once; returns the last batch that it was told of. */
async function writeUntilKilled(dir: string, segmentBytes: number, acknowledgements: number): Promise<number> {
  const args = [dir, segmentBytes, acknowledgements + MOST_MORE].map(String)
  const child = spawn(process.execPath, [path.join(import.meta.dirname, 'embedded-log-writer.ts'), ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let last = -1
  let count = 0
  for await (const line of createInterface({ input: child.stdout })) {
    last = Number(line)
    if (++count === acknowledgements) child.kill('SIGKILL')
  }
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  expect(child.signalCode).toBe('SIGKILL')
  return last
}

/** Everything up to the log's own progress is there exactly once, and nothing else; returns that progress. */
async function checkAll(log: Log): Promise<number> {
  const n = (await log.progress('node')).get('n') as number
  const bounds = await log.bounds('all')
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const expected: string[] = []
    for (let k = 0; k <= n; k++) expected.push(...valuesOf(k, partition))
    expect(bounds[partition]!.end).toBe(BigInt(expected.length))
    const seen = await readCount(log, [startOf('all', partition)], expected.length)
    expect(seen.map((record) => record.id)).toEqual(expected)
  }
  const latest = new Map<string, string>()
  for (let k = 0; k <= n; k++) {
    const { key, value } = latestOf(k)
    if (value === null) latest.delete(key)
    else latest.set(key, value)
  }
  const found = new Map<string, string>()
  let next = 0n
  let read = 0
  await readUntil(log, [startOf('latest')], (seen) => {
    for (; read < seen.length; read++) {
      const record = seen[read]!
      next = record.offset + 1n
      if (record.id === null) found.delete(record.key!)
      else found.set(record.key!, record.id)
    }
    return JSON.stringify([...found].sort()) === JSON.stringify([...latest].sort()) && (next > BigInt(n) - 5n || n < 5)
  })
  return n
}

// I5
test.each([3_000, 60_000])(`kill -9 at ${ROUNDS} points: what was acknowledged is there once, nothing half (segments of %i bytes)`, async (segmentBytes) => {
  const dir = path.join(root, `log-${segmentBytes}`)
  const random = randomOf(segmentBytes)
  let before = -1
  for (let round = 0; round < ROUNDS; round++) {
    const acknowledged = await writeUntilKilled(dir, segmentBytes, 1 + Math.floor(random() * 60))
    expect(acknowledged).toBeGreaterThan(before)
    {
      await using reader = await openEmbeddedLog({ dir, readOnly: true })
      expect((await reader.progress('node')).get('n')).toBeGreaterThanOrEqual(acknowledged)
    }
    await using log = await openEmbeddedLog({ dir, segmentBytes, cleanEveryMs: 3_600_000 })
    before = await checkAll(log)
    expect(before).toBeGreaterThanOrEqual(acknowledged)
    // at most the five that were in flight were written without being acknowledged; the pipe holds some more that we did not wait for
    expect(before - acknowledged).toBeLessThanOrEqual(5)
  }
})
