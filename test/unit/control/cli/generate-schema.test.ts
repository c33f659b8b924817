import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { SCHEMA_FILE, schemaText } from '../../../../control/cli/generate-schema.ts'

test('mesh.schema.json is up to date: run node control/cli/generate-schema.ts', async () => {
  expect(readFileSync(SCHEMA_FILE, 'utf8')).toBe(await schemaText())
})
