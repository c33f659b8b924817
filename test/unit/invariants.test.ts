import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const laws = readFileSync('docs/invariants.md', 'utf8')
  .split('\n')
  .map((line) => /^\| (I\d+) \| (.+?) \| (.+?) \| (.+?) \|$/.exec(line))
  .filter((match) => match !== null)
  .map(([, id, law, enforced, tested]) => ({ id: id!, law: law!, enforced: enforced!, tested: tested! }))

test('every law names code that enforces it and a test, and both exist', () => {
  expect(laws.length).toBeGreaterThanOrEqual(9)
  for (const { id, enforced, tested } of laws) {
    for (const file of [...enforced.split(', '), ...tested.split(', ')]) expect(existsSync(file), `${id}: ${file}`).toBe(true)
  }
})

test('the code that enforces a law and the tests that prove it cite it, and no unknown law is cited', () => {
  const cited = new Map<string, Set<string>>()
  const hits = execFileSync('git', ['grep', '-noE', '(//|/\\*\\*) I[0-9]+(, I[0-9]+)*(:|$)', '--', 'core', 'connectors', 'control', 'test', 'testing'], {
    encoding: 'utf8',
  })
  for (const hit of hits.trim().split('\n')) {
    const file = hit.slice(0, hit.indexOf(':'))
    for (const [id] of hit.slice(hit.lastIndexOf('/')).matchAll(/I\d+/g)) cited.set(id, (cited.get(id) ?? new Set()).add(file))
  }
  const known = new Set(laws.map(({ id }) => id))
  for (const id of cited.keys()) expect(known.has(id), `${id} is cited and not in docs/invariants.md`).toBe(true)
  for (const { id, enforced, tested } of laws)
    for (const file of [...enforced.split(', '), ...tested.split(', ')]) expect(cited.get(id)?.has(file), `${file} should cite ${id}`).toBe(true)
})
