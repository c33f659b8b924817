/** The code of docs/how-to/write-a-source.md, taken from the page and run: its contract test runs as a part of this file. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { pluginFiles } from '../../../control/cli/plugin-template.ts'

const page = readFileSync('docs/how-to/write-a-source.md', 'utf8')

/** The blocks of a file, pasted one after another. */
function pasted(file: string): string {
  const blocks = [...page.matchAll(/^```ts (\S+)\n([\s\S]*?)^```$/gm)].filter(([, name]) => name === file)
  return blocks.map(([, , code]) => code).join('\n')
}

const withoutBlankLines = (text: string) => text.replaceAll(/\n\n+/g, '\n')

test('the page explains what `millrace new source` writes, all of it', () => {
  const written = pluginFiles('source', 'pond')
  for (const file of ['index.ts', 'index.test.ts']) expect(withoutBlankLines(pasted(file))).toBe(withoutBlankLines(written[file]!))
})

// within the clone, where zod and vitest are found
mkdirSync('.millrace', { recursive: true })
const dir = mkdtempSync(path.resolve('.millrace', 'how-to-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
const front = { "'millrace'": path.resolve('core/plugin.ts'), "'millrace/testing'": path.resolve('testing/index.ts') }
for (const file of ['index.ts', 'index.test.ts']) {
  const code = Object.entries(front).reduce((text, [name, ours]) => text.replaceAll(`from ${name}`, `from '${ours}'`), pasted(file))
  writeFileSync(path.join(dir, file), code)
}
await import(path.join(dir, 'index.test.ts'))
