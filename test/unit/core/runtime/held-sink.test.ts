import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { z } from 'zod'
import files from '../../../../connectors/files/index.ts'
import type { LogPosition } from '../../../../core/log/log.ts'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { definePlugin, type Plugin } from '../../../../core/plugin.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'

const TABLES = ['a', 'b', 'c', 'd', 'e']
/** Far more bytes than the open batches of a process may hold together. */
const ROWS = 2000
const BODY = 'much '.repeat(100)

/** A sink that counts rows; one with `held` waits in every commit until it is let go. */
function counting(held: Promise<void>, applied: Map<string, number>, atOnce: { now: number; most: number }) {
  return definePlugin({
    kind: 'sink',
    name: 'counting',
    summary: 'Counts.',
    config: z.strictObject({ held: z.boolean().describe('Whether it waits.') }),
    check: async () => [],
    async open(config, context, { topic }) {
      let positions: readonly LogPosition[] = []
      return {
        limits: { rows: 50_000, bytes: 64 * 1024 * 1024, ageMs: 50 },
        prepare: async () => {},
        committed: async () => positions,
        async apply(batch) {
          if (config.held) {
            atOnce.most = Math.max(atOnce.most, ++atOnce.now)
            await held
            atOnce.now--
          }
          const name = `${context.node} ${topic}`
          applied.set(name, (applied.get(name) ?? 0) + batch.changes.length)
          positions = batch.positions
          return []
        },
        async *rows() {},
        async [Symbol.asyncDispose]() {},
      }
    },
  })
}

test('a sink that stands still in its commits holds back no other sink, and catches up itself', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'held-sink-'))
  try {
    mkdirSync(path.join(dir, 'in'))
    for (const table of TABLES) {
      const lines = Array.from({ length: ROWS }, (_, id) => JSON.stringify({ id, body: BODY }))
      writeFileSync(path.join(dir, 'in', `${table}.ndjson`), `${lines.join('\n')}\n`)
    }
    const file = path.join(dir, 'm.mesh.yaml')
    writeFileSync(
      file,
      `mesh: held
dataDir: ./data
sources:
  logs: { kind: files, directory: ./in, tables: [{ files: '{table}.ndjson', format: ndjson }] }
sinks:
  slow: { kind: counting, from: [logs], held: true }
  quick: { kind: counting, from: [logs], held: false }
`,
    )
    const letGo = Promise.withResolvers<void>()
    let stood: readonly number[] | null = null
    const applied = new Map<string, number>()
    const atOnce = { now: 0, most: 0 }
    const known = new Map<string, Plugin<unknown>>(
      [files, counting(letGo.promise, applied, atOnce)].map((plugin) => [plugin.name, plugin as unknown as Plugin<unknown>]),
    )
    const mesh = await loadMesh(file, { names: [...known.keys()], find: async (kind) => known.get(kind)! })
    const stop = new AbortController()
    const rowsOf = (node: string) => TABLES.map((table) => applied.get(`${node} logs.files.${table}`) ?? 0)
    const whole = TABLES.map(() => ROWS)
    const isThrough = (node: string) => rowsOf(node).every((rows) => rows >= ROWS)
    const running = runMesh(mesh, {
      secrets: new Secrets({ env: {}, dir }),
      logger: pino({ level: 'silent' }),
      signal: stop.signal,
      onStatus: () => {
        if (isThrough('quick')) {
          stood ??= rowsOf('slow')
          letGo.resolve()
        }
        if (isThrough('slow')) stop.abort()
      },
    })
    const late = setTimeout(() => {
      // a failure that tells how far it came
      letGo.resolve()
      stop.abort()
    }, 240_000)
    await Promise.race([letGo.promise, running])
    expect(rowsOf('quick')).toEqual(whole)
    expect(stood).toEqual(TABLES.map(() => 0))
    await running
    clearTimeout(late)
    expect(rowsOf('slow')).toEqual(whole)
    expect(rowsOf('quick')).toEqual(whole)
    // I8: what applies at once is what memory is reckoned with
    expect(atOnce.most).toBe(1)
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}, 300_000)
