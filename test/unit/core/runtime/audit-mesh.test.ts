import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import { expect, test } from 'vitest'
import { MillraceError } from '../../../../core/errors.ts'
import type { Json } from '../../../../core/event/offset.ts'
import type { TableSchema } from '../../../../core/event/table-schema.ts'
import { openEmbeddedLog } from '../../../../core/log/embedded/embedded-log.ts'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import type { Plugin } from '../../../../core/plugin.ts'
import { auditMesh, readerContext } from '../../../../core/runtime/audit-mesh.ts'
import { pond, river } from '../mesh/test-plugins.ts'

test('what the log says of a parked table is told without its secrets', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-audit-'))
  try {
    const file = path.join(dir, 'm.mesh.yaml')
    writeFileSync(file, "mesh: m\ndataDir: ./data\nsources:\n  shop: { kind: river, url: '${env:RIVER_URL}', tables: [t] }\n")
    const plugin = { ...river, openReader: async () => ({ tables: async () => [], async [Symbol.asyncDispose]() {} }) } as unknown as Plugin<unknown>
    const mesh = await loadMesh(file, { names: ['river'], find: async () => plugin })
    {
      await using log = await openEmbeddedLog({ dir: path.join(mesh.dataDir, 'log') })
      await using writer = await log.openWriter('shop')
      const parked = { code: 'source.schema_unsupported', message: 'asked river://me:hush-hush@far/db', fix: 'ask hush-hush', skipped: 1 }
      const entry = { ...parked, position: { commit: '1', ordinal: 1 }, since: '2026-11-26T00:00:00.000Z' }
      await writer.append({ frames: [], count: 0, progress: new Map([['parked/public.t', entry]]) })
    }
    const secrets = new Secrets({ env: { RIVER_URL: 'river://me:hush-hush@far/db' }, dir })
    const logger = pino({ level: 'silent' })
    expect(readerContext(mesh, 'shop', logger)).toMatchObject({ node: 'shop', readOnly: true })
    const audits = await auditMesh(mesh, { secrets, logger, waitMs: 1000, signal: new AbortController().signal })
    expect(audits).toMatchObject([{ table: 'public.t', parked: true, equal: false }])
    // I9
    expect(JSON.stringify(audits)).not.toContain('hush-hush')
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})

test('what a sink says as it refuses a table is told without its secrets', async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-audit-'))
  try {
    const file = path.join(dir, 'm.mesh.yaml')
    const sink = "sinks:\n  lake: { kind: pond, from: [shop], warehouse: '${env:POND}' }\n"
    writeFileSync(file, `mesh: m\ndataDir: ./data\nsources:\n  shop: { kind: river, url: 'river://far/db', tables: [t] }\n${sink}`)
    const column = { id: '1', name: 'id', type: { kind: 'long' }, nullable: false, sourceType: 'bigint', mayBeUnchanged: false }
    const table = { namespace: 'public', name: 't', incarnation: '1', key: [0], columns: [column] } as unknown as TableSchema
    const reader = {
      tables: async () => [table],
      scan: async (_: TableSchema, open: (shape: TableSchema) => unknown) => {
        open(table)
        return 0n
      },
      reached: () => true,
      async [Symbol.asyncDispose]() {},
    }
    const refused = async () => {
      throw new MillraceError('sink.schema_unsupported', 'hush-hush has no such type', { fix: 'ask hush-hush' })
    }
    const plugins = [
      { ...river, openReader: async () => reader },
      { ...pond, open: refused },
    ] as unknown as Plugin<unknown>[]
    const mesh = await loadMesh(file, { names: ['river', 'pond'], find: async (kind) => plugins.find(({ name }) => name === kind)! })
    {
      await using log = await openEmbeddedLog({ dir: path.join(mesh.dataDir, 'log') })
      await log.ensureTopics([{ topic: 'shop.public.t', partitions: 1, retentionMs: null, compacted: false, replicationFactor: null }])
      await using writer = await log.openWriter('shop')
      const progress = new Map<string, Json>([
        ['offset', { at: 1 }],
        ['snapshot/public.t', { done: true }],
      ])
      await writer.append({ frames: [], count: 0, progress })
    }
    const secrets = new Secrets({ env: { POND: 'hush-hush' }, dir })
    const [audit] = await auditMesh(mesh, { secrets, logger: pino({ level: 'silent' }), waitMs: 1000, signal: new AbortController().signal })
    expect(audit!.differences).toEqual(['lake does not take it: sink.schema_unsupported: [secret] has no such type; fix: ask [secret]'])
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
})
