import { appendFileSync, existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { mkdtempDisposable } from 'node:fs/promises'
import os from 'node:os'
import path from 'node:path'
import { Readable, Writable } from 'node:stream'
import pino from 'pino'
import { expect, test } from 'vitest'
import { z } from 'zod'
import files from '../../../../connectors/files/index.ts'
import { COMMANDS } from '../../../../control/cli/commands.ts'
import { runCli } from '../../../../control/cli/run-cli.ts'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { definePlugin, MillraceError, type Plugin, type SinkConnector } from '../../../../core/plugin.ts'
import { compactMesh } from '../../../../core/runtime/compact-mesh.ts'
import type { MeshStatus } from '../../../../core/runtime/mesh-status.ts'
import { PluginCatalog } from '../../../../core/runtime/plugin-catalog.ts'
import { runMesh } from '../../../../core/runtime/runtime.ts'

const SOURCE = "sources:\n  logs: { kind: files, directory: ./in, tables: [{ files: '{table}.ndjson', format: ndjson, columns: { id: int64, name: string }, key: [id] }] }\n" // biome-ignore format: YAML
const silent = pino({ level: 'silent' })
const never = new AbortController().signal

/** What the command line prints and ends with; its plugins are the real ones. */
async function millrace(...args: string[]) {
  const text = { out: '', err: '' }
  const into = (name: 'out' | 'err') =>
    new Writable({
      write(chunk, _, done) {
        text[name] += String(chunk)
        done()
      },
    })
  const io = { stdin: Readable.from([]), stdout: into('out'), stderr: into('err'), env: {}, cwd: os.tmpdir(), signal: never }
  return { code: await runCli(args, COMMANDS, io), ...text }
}

test('the tables of a lake are rewritten while its mesh does not run, which goes on from there', async () => {
  await using folder = await mkdtempDisposable(path.join(os.tmpdir(), 'compact-mesh-'))
  const dir = folder.path
  const file = path.join(dir, 'm.mesh.yaml')
  const sinks = 'sinks:\n  lake: { kind: iceberg, from: [logs], warehouse: ./lake }\n  find: { kind: search, from: [logs] }\n'
  writeFileSync(file, `mesh: compacted\ndataDir: ./data\n${SOURCE}${sinks}`)
  mkdirSync(path.join(dir, 'in'))
  const put = (...rows: readonly (readonly [number, string])[]) =>
    appendFileSync(path.join(dir, 'in', 'orders.ndjson'), rows.map(([id, name]) => `${JSON.stringify({ id, name })}\n`).join(''))
  const mesh = await loadMesh(file, new PluginCatalog())
  /** Runs the mesh until both sinks have so many rows more, and `then` is done. */
  const run = async (rows: number, then = async () => {}) => {
    const stop = new AbortController()
    let ending: Promise<void> | null = null
    const onStatus = ({ nodes }: MeshStatus) => {
      if (nodes.filter((one) => one.role === 'sink' && one.rows >= rows).length === 2) ending ??= then().finally(() => stop.abort())
    }
    await runMesh(mesh, { secrets: new Secrets({ env: {}, dir }), logger: silent, signal: stop.signal, onStatus })
    await ending
  }

  expect(await millrace('compact', file)).toMatchObject({ code: 2, err: expect.stringMatching(/never ran here.*\n +fix: .*millrace run/) })
  expect(existsSync(mesh.dataDir)).toBe(false)
  put([1, 'one'], [2, 'two'], [3, 'three'])
  await run(3)
  put([1, 'uno'], [4, 'four'])
  let refused: object | null = null
  await run(2, async () => {
    refused = await millrace('compact', file, 'lake')
  })
  expect(refused).toMatchObject({ code: 1, err: expect.stringMatching(/log\.locked: process \d+ runs a mesh.*\n +fix: stop it first/) })

  const stream = 'logs.files.orders'
  for (const [what, message] of [
    ['find', /find \(search\) has nothing that could be compacted/],
    ['lak', /no sink lak\n +fix: one of: lake, find/],
    ['lake/logs.files.order', /takes no stream logs\.files\.order\n +fix: one of: logs\.files\.orders/],
  ] as const) {
    expect(await millrace('compact', file, what)).toMatchObject({ code: 2, out: '', err: expect.stringMatching(message) })
  }
  const compacted = await millrace('compact', file, `lake/${stream}`, '--json')
  expect(compacted, compacted.err).toMatchObject({ code: 0 })
  const { after } = JSON.parse(compacted.out).result.targets[0].compaction
  expect(JSON.parse(compacted.out)).toEqual({
    command: 'compact',
    ok: true,
    result: {
      stopped: false,
      targets: [
        {
          sink: 'lake',
          stream,
          error: null,
          compaction: { before: { files: 3, deleteFiles: 1, bytes: expect.any(Number) }, after: { files: 1, deleteFiles: 0, bytes: after.bytes } },
        },
      ],
    },
    error: null,
  })
  // the search sink is none that compacts, and no reason to refuse the lake, nor is one that cannot be opened
  writeFileSync(file, `mesh: compacted\ndataDir: ./data\n${SOURCE}${sinks}  other: { kind: search, from: [logs], path: '\${env:NOPE}' }\n`)
  expect(await millrace('compact', file)).toEqual({ code: 0, out: `lake/${stream}: nothing to do (1 file)\n`, err: '' })
  writeFileSync(file, `mesh: compacted\ndataDir: ./data\n${SOURCE}${sinks}`)
  expect(await millrace('compact', file)).toEqual({ code: 0, out: `lake/${stream}: nothing to do (1 file)\n`, err: '' })

  put([2, 'dos'], [1, 'un'])
  await run(2)
  expect((await millrace('compact', file)).out).toMatch(/^lake\/logs\.files\.orders: 3 files, 1 of them delete files, became 1 \(.* B became .* B\)\n$/)
  const audit = await millrace('audit', file)
  expect([audit.code, audit.out], audit.err).toEqual([0, expect.stringMatching(/^files\.orders +4 .* equal$/m)])
  const windows = await millrace('audit', file, '--windows', '--json')
  expect(JSON.parse(windows.out).result.streams.map(({ sink, behind }: { sink: string; behind: number }) => [sink, behind])).toEqual([
    ['lake', 0],
    ['find', 0],
  ])
  expect(windows.code).toBe(0)
})

/** A mesh that captured tables a, b and c, whose one sink compacts as the test says. */
async function meshOf(dir: string, compact: (table: string, signal: AbortSignal) => ReturnType<NonNullable<SinkConnector['compact']>>) {
  const sink = definePlugin({
    kind: 'sink',
    compacts: true,
    name: 'shelf',
    summary: 'Compacts.',
    config: z.strictObject({ password: z.string().describe('Secret.') }),
    check: async () => [],
    async open(_, __, { table }): Promise<SinkConnector> {
      return {
        limits: { rows: 10, bytes: 1000, ageMs: 10 },
        prepare: async () => {},
        committed: async () => [],
        apply: async () => [],
        async *rows() {},
        compact: (signal) => compact(table, signal),
        async [Symbol.asyncDispose]() {},
      }
    },
  })
  mkdirSync(path.join(dir, 'in'))
  for (const table of ['a', 'b', 'c']) writeFileSync(path.join(dir, 'in', `${table}.ndjson`), '{"id":1,"name":"x"}\n')
  const file = path.join(dir, 'm.mesh.yaml')
  writeFileSync(
    file,
    `mesh: shelves\ndataDir: ./data\n${SOURCE}sinks:\n  shelf: { kind: shelf, from: [logs, '!logs.files.c'], password: '\${env:PASSWORD}' }\n`,
  )
  const known = new Map<string, Plugin<unknown>>([files, sink].map((plugin) => [plugin.name, plugin as unknown as Plugin<unknown>]))
  const mesh = await loadMesh(file, { names: [...known.keys()], find: async (kind) => known.get(kind)! })
  const secrets = new Secrets({ env: { PASSWORD: 'hush-hush' }, dir })
  const { outcome } = await runMesh(mesh, { secrets, logger: silent, signal: never, untilIdleMs: 200 })
  expect(outcome).toBe('idle')
  return { mesh, options: { secrets, logger: silent, signal: never } }
}

const ALL = { sink: null, stream: null }
const found = { before: { files: 2, deleteFiles: 1, bytes: 10 }, after: { files: 1, deleteFiles: 0, bytes: 5 } }

test('what is wrong with one table stops no other, and is told without secrets', async () => {
  await using folder = await mkdtempDisposable(path.join(os.tmpdir(), 'compact-mesh-'))
  const { mesh, options } = await meshOf(folder.path, async (table) => {
    if (table === 'a') throw new MillraceError('sink.unreachable', 'no answer to hush-hush', { fix: 'ask with hush-hush' })
    return found
  })
  const error = { code: 'sink.unreachable', category: 'unavailable', message: 'no answer to [secret]', fix: 'ask with [secret]' }
  expect(await compactMesh(mesh, ALL, options)).toEqual([
    { sink: 'shelf', stream: 'logs.files.a', compaction: null, error },
    { sink: 'shelf', stream: 'logs.files.b', compaction: found, error: null },
  ])
})

test('once stopped it names the tables that are done, and begins no other', async () => {
  await using folder = await mkdtempDisposable(path.join(os.tmpdir(), 'compact-mesh-'))
  const stop = new AbortController()
  let begun = 0
  const { mesh, options } = await meshOf(folder.path, async (_, signal) => {
    begun++
    stop.abort()
    signal.throwIfAborted()
    return found
  })
  expect(await compactMesh(mesh, ALL, { ...options, signal: stop.signal })).toEqual([])
  expect(await compactMesh(mesh, ALL, { ...options, signal: stop.signal })).toEqual([])
  expect(begun).toBe(1)
})
