import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, test } from 'vitest'
import { PluginCatalog } from '../../../../core/runtime/plugin-catalog.ts'

const front = pathToFileURL(path.resolve('core/plugin.ts')).href
const plugin = (name: string) => `import { definePlugin } from '${front}'
export default definePlugin({ kind: 'sink', name: '${name}', summary: 's', config: { parse() {} }, check: async () => [], open: async () => { throw 0 } })
`

function folder(files: Record<string, string>): string {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-plugins-'))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(dir, name)), { recursive: true })
    writeFileSync(path.join(dir, name), text)
  }
  return dir
}

test('finds plugins by folder, by path and by package name', async () => {
  const dir = folder({
    'own/pond/index.ts': plugin('pond'),
    'own/notes/readme.md': '',
    'mine/index.ts': plugin('mine'),
    'node_modules/their-sink/package.json': '{"name":"their-sink","main":"main.mjs"}',
    'node_modules/their-sink/main.mjs': plugin('theirs'),
    'node_modules/millrace-plugin-lake/package.json': '{"name":"millrace-plugin-lake","type":"module","exports":"./main.js"}',
    'node_modules/millrace-plugin-lake/main.js': plugin('lake'),
  })
  const catalog = new PluginCatalog(path.join(dir, 'own'))
  expect(catalog.names).toEqual(['pond'])
  expect((await catalog.find('pond', undefined, dir)).name).toBe('pond')
  expect((await catalog.find('mine', './mine', dir)).name).toBe('mine')
  expect((await catalog.find('mine', './mine/index.ts', dir)).name).toBe('mine')
  expect((await catalog.find('theirs', 'their-sink', dir)).name).toBe('theirs')
  expect((await catalog.find('lake', undefined, path.join(dir, 'mine'))).name).toBe('lake')
  expect((await catalog.at('./mine', dir)).name).toBe('mine')
  expect((await catalog.all()).map(({ name }) => name)).toEqual(['pond'])
  expect((await catalog.all(dir)).map(({ name, plugin: found }) => [name, found.name])).toEqual([
    ['pond', 'pond'],
    ['lake', 'lake'],
  ])
})

test('tells what is wrong with a plugin', async () => {
  const dir = folder({
    'own/pond/index.ts': plugin('pond'),
    'bad/index.ts': 'export default 1',
    'broken/index.ts': 'import "./nothing.ts"',
    'named/index.ts': plugin('other'),
    'halves/index.ts': "export default { kind: 'source', name: 'x', config: { parse() {} }, open() {}, check() {} }",
    'node_modules/unbuilt/package.json': '{"name":"unbuilt","exports":{"./else":"./else.js"}}',
  })
  const catalog = new PluginCatalog(path.join(dir, 'own'))
  const error = (message: RegExp, fix: RegExp) =>
    expect.objectContaining({ code: 'config.unknown_plugin', message: expect.stringMatching(message), fix: expect.stringMatching(fix) })
  await expect(catalog.find('pnod', undefined, dir)).rejects.toEqual(error(/no plugin is called pnod/, /kind: pond/))
  await expect(catalog.find('lagoon', undefined, dir)).rejects.toEqual(error(/own \(pond\), and no package millrace-plugin-lagoon .* or above/, /npm install/))
  await expect(catalog.find('x', './nowhere', dir)).rejects.toEqual(error(/no plugin at .*nowhere\/index\.ts/, /path/))
  await expect(catalog.find('x', './halves', dir)).rejects.toEqual(error(/no function openReader/, /definePlugin/))
  await expect(catalog.find('x', 'unbuilt', dir)).rejects.toEqual(error(/cannot be used/, /exports/))
  await expect(catalog.find('x', 'not-installed', dir)).rejects.toEqual(error(/not installed/, /npm install not-installed/))
  await expect(catalog.find('x', './bad', dir)).rejects.toEqual(error(/default export/, /definePlugin/))
  await expect(catalog.find('x', './broken', dir)).rejects.toEqual(error(/does not load/, /repair/))
  await expect(catalog.find('x', './named', dir)).rejects.toEqual(error(/is the plugin other/, /kind: other/))
})
