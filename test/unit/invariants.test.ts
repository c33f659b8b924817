import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'

const laws = readFileSync('docs/invariants.md', 'utf8')
  .split('\n')
  .map((line) => /^\| (I\d+) \| (.+?) \| (.+?) \| (.+?) \|$/.exec(line))
  .filter((match) => match !== null)
  .map(([, id, law, enforced, tested]) => ({ id: id!, law: law!, enforced: enforced!, tested: tested! }))

const filesBelow = (dir: string): readonly string[] =>
  readdirSync(dir, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && /\.(ts|js)$/.test(entry.name))
    .map((entry) => path.join(entry.parentPath, entry.name))

test('every law names code that enforces it and a test, and both exist', () => {
  expect(laws.length).toBeGreaterThanOrEqual(9)
  for (const { id, enforced, tested } of laws) {
    for (const file of [...enforced.split(', '), ...tested.split(', ')]) expect(existsSync(file), `${id}: ${file}`).toBe(true)
  }
})

test('the code that enforces a law and the tests that prove it cite it, and no unknown law is cited', () => {
  const cited = new Map<string, Set<string>>()
  for (const file of ['core', 'connectors', 'control', 'test', 'testing'].flatMap(filesBelow)) {
    for (const [, ids] of readFileSync(file, 'utf8').matchAll(/(?:\/\/|\/\*\*) (I\d+(?:, I\d+)*)(?=:|$)/gm))
      for (const id of ids!.split(', ')) cited.set(id, (cited.get(id) ?? new Set()).add(file))
  }
  const known = new Set(laws.map(({ id }) => id))
  for (const id of cited.keys()) expect(known.has(id), `${id} is cited and not in docs/invariants.md`).toBe(true)
  for (const { id, enforced, tested } of laws)
    for (const file of [...enforced.split(', '), ...tested.split(', ')]) expect(cited.get(id)?.has(file), `${file} should cite ${id}`).toBe(true)
})
