import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { SCHEMA_FILE, schemaText } from '../../../../control/cli/generate-schema.ts'
import { readMesh } from '../../../../core/mesh/read-mesh.ts'
import { PluginCatalog } from '../../../../core/runtime/plugin-catalog.ts'

test('mesh.schema.json is up to date: run node control/cli/generate-schema.ts', async () => {
  expect(readFileSync(SCHEMA_FILE, 'utf8')).toBe(await schemaText())
})

test.each(readdirSync('mesh-config').filter((name) => name.endsWith('.yaml')))('the example %s is in order', async (name) => {
  expect((await readMesh(`mesh-config/${name}`, new PluginCatalog())).findings).toEqual([])
})
