/** The code of docs/how-to/write-a-source.md is that of the template, whose contract test runs with the unit tests. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
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
