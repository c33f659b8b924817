import { expect, test } from 'vitest'
import { pluginFiles } from '../../../../control/cli/plugin-template.ts'

test.each(['source', 'sink'] as const)('a new %s has its own name in all of its files', (kind) => {
  const written = pluginFiles(kind, 'pond')
  expect(Object.keys(written)).toEqual(
    expect.arrayContaining(['package.json', 'tsconfig.json', '.gitignore', 'index.ts', 'index.test.ts', 'mesh.yaml', 'README.md']),
  )
  for (const [file, text] of Object.entries(written)) expect(text, file).not.toContain('plugin-name')
  expect(written['index.ts']).toContain("name: 'pond'")
  expect(written['mesh.yaml']).toContain('kind: pond')
})
