import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { PassThrough } from 'node:stream'
import pino from 'pino'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import type { CommandInput } from '../../../../control/cli/command.ts'
import { resnapshotCommand } from '../../../../control/cli/resnapshot-command.ts'
import { commandRunning } from '../../../../control/cli/running-mesh.ts'
import type { Mesh } from '../../../../core/mesh/mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { MillraceError, type SourceOffset } from '../../../../core/plugin.ts'
import { DataFolder } from '../../../../core/runtime/data-folder.ts'
import { openLog } from '../../../../core/runtime/open-log.ts'
import { type RunResult, runMesh } from '../../../../core/runtime/runtime.ts'
import { emptySource, meshOfSource } from './source-mesh.ts'

const dir = mkdtempSync(path.join(os.tmpdir(), 'read-again-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

/** The offsets that the source was opened at, and those that were durable; how it answers; called at each. */
const opened: (SourceOffset | null)[] = []
const durable: SourceOffset[] = []
let refusal: Error | null = null
let onCall = () => {}

const idle = emptySource({
  async *changes(from, _output, signal) {
    yield from
    if (!signal.aborted) await once(signal, 'abort')
  },
  acknowledge: (offset) => {
    durable.push(offset)
    onCall()
  },
})

let mesh: Mesh
beforeAll(async () => {
  mesh = await meshOfSource(dir, async (_config, _context, resume) => {
    opened.push(resume)
    onCall()
    if (refusal !== null) throw refusal
    return idle
  })
})

/** Runs the mesh from a clean record until it ends, or `until` says so after a call of the source or a status. */
async function run(until: (stop: AbortController) => unknown, resnapshot?: string): Promise<RunResult> {
  const stop = new AbortController()
  const look = () => until(stop)
  opened.length = 0
  durable.length = 0
  onCall = look
  const asked = resnapshot === undefined ? {} : { resnapshot }
  return await runMesh(mesh, { secrets: new Secrets({ env: {}, dir }), logger: pino({ level: 'silent' }), signal: stop.signal, onStatus: look, ...asked })
}

const untilOpened = (times: number) => (stop: AbortController) => opened.length >= times && stop.abort()
const captureOnce = () => run((stop) => durable.length > 0 && stop.abort())

test('a source that another process has is not started over: what was to be read again is refused before the log is touched', async () => {
  await captureOnce()
  refusal = new MillraceError('source.in_use', 'another process captures it')
  const { outcome, status } = await run(() => {}, 'shop')
  expect([outcome, status.nodes[0]?.error?.code, opened]).toEqual(['failed', 'source.in_use', [{ at: 1 }]])
  refusal = null
  await captureOnce()
  expect(opened).toEqual([{ at: 1 }])
})

test('what a running source was asked to read again it reads after a restart, when it could not before; and once', async () => {
  await captureOnce()
  let isTaken: boolean | null = null
  await run((stop) => {
    if (opened.length === 1 && refusal === null) {
      refusal = new MillraceError('source.unreachable', 'it is away')
      void commandRunning(mesh.dataDir, 'shop', 'resnapshot', null).then((taken) => {
        isTaken = taken
        onCall()
      })
    }
    if (opened.length > 1 && isTaken !== null) stop.abort()
  })
  expect(isTaken).toBe(true)
  expect(opened.slice(0, 2)).toEqual([{ at: 1 }, { at: 1 }])
  refusal = null
  await run(untilOpened(2))
  expect(opened).toEqual([{ at: 1 }, null])
  await captureOnce()
  expect(opened).toEqual([{ at: 1 }])
})

/** As a running mesh notes that it was asked to. */
function want(): void {
  using folder = new DataFolder(mesh.dataDir)
  folder.want('shop', null)
}

function wanted(): unknown[] {
  using folder = new DataFolder(mesh.dataDir)
  return [...folder.wanted]
}

test.each([
  'source.forbidden',
  'source.unprepared',
  'log.fenced',
  'config.invalid',
  'config.unsupported',
  'invariant.broken',
] as const)('who cannot look whether a source is captured (%s) fences nobody', async (code) => {
  await captureOnce()
  want()
  refusal = new MillraceError(code, 'not so')
  const { outcome, status } = await run(() => {})
  refusal = null
  expect([outcome, status.nodes[0]?.error?.code, opened]).toEqual(['failed', code, [{ at: 1 }]])
  expect(wanted()).toEqual([['shop', [null]]])
  await run(untilOpened(2))
  expect(opened).toEqual([{ at: 1 }, null])
})

test('millrace resnapshot of a mesh that does not run here leaves its source to the process that has it, and is done once nobody has', async () => {
  await captureOnce()
  const { plugin } = mesh.sources[0]!
  const secrets = () => new Secrets({ env: {}, dir })
  const io = { stderr: new PassThrough(), env: {} }
  const plugins = { names: [plugin.name], find: async () => plugin }
  const ask = (what: string) => resnapshotCommand.run({ arguments: [mesh.file, what], options: {}, io, plugins, secrets } as unknown as CommandInput)
  {
    // who only looks needs no right to write
    await using _ = await openLog({ mesh, secrets: secrets(), logger: pino({ level: 'silent' }), readOnly: false })
    await expect(ask('shop/public.none')).rejects.toMatchObject({ code: 'config.invalid', message: expect.stringContaining('public.none') })
  }
  await expect(ask('shop/public.none')).rejects.toMatchObject({ code: 'config.invalid', message: expect.stringContaining('public.none') })
  expect(await ask('shop')).toMatchObject({ exitCode: 0, result: { node: 'shop', table: null, running: false } })
  {
    await using log = await openLog({ mesh, secrets: secrets(), logger: pino({ level: 'silent' }), readOnly: true })
    expect((await log.progress('shop')).get('offset')).toEqual({ at: 1 })
  }
  refusal = new MillraceError('source.in_use', 'another process captures it')
  expect((await run(() => {})).outcome).toBe('failed')
  refusal = null
  expect(opened).toEqual([{ at: 1 }])
  await run(untilOpened(2))
  expect(opened).toEqual([{ at: 1 }, null])
})

test('a stop while it looks fences nobody either, whatever the plugin throws', async () => {
  await captureOnce()
  refusal = new DOMException('given up', 'AbortError')
  const { outcome } = await run(untilOpened(1), 'shop')
  refusal = null
  expect([outcome, opened]).toEqual(['stopped', [{ at: 1 }]])
  await captureOnce()
  expect(opened).toEqual([{ at: 1 }])
})

test.each([
  'source.history_lost',
  'source.identity_changed',
  'source.schema_unsupported',
  'source.protocol',
] as const)('a source that cannot go on from its offset (%s) is read again', async (code) => {
  await captureOnce()
  await run((stop) => {
    refusal = opened.length === 1 ? new MillraceError(code, 'of something else') : null
    if (durable.length > 0) stop.abort()
  }, 'shop')
  expect(opened).toEqual([{ at: 1 }, null])
})

test('what could not be noted as read again is noted by the same process', async () => {
  await captureOnce()
  want()
  const grant = vi.spyOn(DataFolder.prototype, 'grant').mockImplementationOnce(() => {
    throw new MillraceError('log.full', 'no room')
  })
  try {
    await captureOnce()
  } finally {
    grant.mockRestore()
  }
  expect(opened).toEqual([{ at: 1 }, null, null])
  expect(wanted()).toEqual([])
})

test('a paused source is not asked to read again by a run that would end without it', async () => {
  await captureOnce()
  {
    using folder = new DataFolder(mesh.dataDir)
    folder.pause('shop')
  }
  await expect(run((stop) => stop.abort(), 'shop')).rejects.toMatchObject({ code: 'config.invalid', fix: expect.stringContaining('millrace resume FILE shop') })
  using folder = new DataFolder(mesh.dataDir)
  folder.resume('shop')
})

test('which tables are to be read again is durable with the data folder, until the log knows', () => {
  const of = path.join(dir, 'folder')
  {
    using folder = new DataFolder(of)
    expect([...folder.wanted]).toEqual([])
    for (const table of ['public.b', null, 'public.b']) folder.want('shop', table)
    folder.want('lake', 'a.b')
    folder.grant('shop', 'public.c')
    folder.grant('lake', 'a.b')
  }
  {
    using folder = new DataFolder(of)
    expect([...folder.wanted]).toEqual([['shop', ['public.b', null]]])
    for (const table of ['public.b', null]) folder.grant('shop', table)
    expect([...folder.wanted]).toEqual([])
    writeFileSync(path.join(of, 'wanted.json'), '{')
    expect(() => folder.wanted).toThrow(expect.objectContaining({ code: 'config.invalid', fix: expect.stringContaining('remove it') }))
  }
})
