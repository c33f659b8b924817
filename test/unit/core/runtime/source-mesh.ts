import { writeFileSync } from 'node:fs'
import path from 'node:path'
import { z } from 'zod'
import type { Mesh } from '../../../../core/mesh/mesh.ts'
import { loadMesh } from '../../../../core/mesh/read-mesh.ts'
import { definePlugin, type Plugin, type SourceConnector, type SourcePlugin } from '../../../../core/plugin.ts'

/** A source without tables that is never behind, with the rest as the test has it. */
export function emptySource(rest: Pick<SourceConnector, 'changes'> & Partial<SourceConnector>): SourceConnector {
  return {
    start: { at: 1 },
    tables: async () => [],
    acknowledge: () => {},
    snapshot: { sees: () => true },
    lag: async () => ({ retainedBytes: 0, behindBytes: 0 }),
    async [Symbol.asyncDispose]() {},
    ...rest,
  } as unknown as SourceConnector
}

/** A mesh in the folder with one node, the source `shop` that `open` opens. */
export async function meshOfSource(dir: string, open: SourcePlugin['open']): Promise<Mesh> {
  const plugin = definePlugin({
    kind: 'source',
    name: 'test-source',
    summary: 'What a test makes of it.',
    config: z.strictObject({}),
    sourceFields: [],
    check: async () => [],
    open,
    openReader: () => Promise.reject(new Error('not read')),
  })
  const file = path.join(dir, 'm.mesh.yaml')
  writeFileSync(file, `mesh: m\ndataDir: ./data\nsources:\n  shop: { kind: ${plugin.name} }\n`)
  return await loadMesh(file, { names: [plugin.name], find: async () => plugin as unknown as Plugin<unknown> })
}
