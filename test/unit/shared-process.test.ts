import { globSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { processState } from './shared-process.ts'

/** What reaches beyond the file that does it. */
const REACHES_OUT = [
  ['vi of vitest', /import \{[^}]*\bvi\b[^}]*\} from 'vitest'/],
  ['mocks of node:test', /from 'node:test'/],
  ['hooks of modules', /\bregisterHooks\(/],
  ['another user', /import \{[^}]*\bshutOut\b[^}]*\} from /],
  ['process.chdir', /\bprocess\.chdir\(/],
  ['a change of process.env', /\bprocess\.env(\.\w+|\[[^\]]+\])? *=[^=>]|delete process\.env|Object\.assign\(process\.env/],
  ['a change of a global', /\b(globalThis|process|Math|Date|performance)\.\w+ *=[^=>]|Object\.(assign|defineProperty)\((globalThis|process|Math|Date)/],
] as const

const FILES = ['test/unit/**/*.ts', 'test/golden/**/*.ts', 'testing/**/*.ts', 'control/cli/templates/*/*.test.ts']

function reachesOut(text: string): readonly string[] {
  return REACHES_OUT.filter(([, pattern]) => pattern.test(text)).map(([what]) => what)
}

test('no unit test that shares its process mocks modules, or changes clock, environment, folder or globals: those are named *.isolated.test.ts', () => {
  const files = globSync(FILES).filter((file) => !file.endsWith('.isolated.test.ts') && !file.endsWith('shared-process.test.ts'))
  expect(files.length).toBeGreaterThan(100)
  expect(files.flatMap((file) => reachesOut(readFileSync(file, 'utf8')).map((what) => `${file}: ${what}`))).toEqual([])
})

test('a test that is isolated needs it', () => {
  for (const file of globSync('test/unit/**/*.isolated.test.ts')) expect(reachesOut(readFileSync(file, 'utf8')), file).not.toEqual([])
})

test.each([
  "import { afterAll, expect, test, vi } from 'vitest'\nvi.mock('node:fs')",
  "import { type Mock,\n  vi,\n} from 'vitest'",
  "import { mock } from 'node:test'",
  "import { shutOut } from '../shut-out.ts'",
  'registerHooks({ resolve })',
  'process.chdir(dir)',
  "process.env.MILLRACE_X = '1'",
  "process.env['MILLRACE_X'] = '1'",
  'delete process.env.MILLRACE_X',
  'globalThis.fetch = answer',
  'process.exitCode = 0',
  'Math.random = () => 0.5',
])('%j reaches out', (text) => expect(reachesOut(text)).toHaveLength(1))

test.each([
  "import { expect, test } from 'vitest'\nconst vi = 1",
  "if (process.env.CI === '1') return",
  'Math.max(a, b) === c',
  'process.env.CI => 1',
])('%j does not', (text) => expect(reachesOut(text)).toEqual([]))

const { now } = Date
test.each([
  ['the folder', () => process.chdir('test'), () => process.chdir('..')],
  ['the environment', () => Object.assign(process.env, { MILLRACE_LEFT: '1' }), () => delete process.env.MILLRACE_LEFT],
  ['the clock', () => Object.assign(Date, { now: () => 0 }), () => Object.assign(Date, { now })],
])('a file that leaves %s changed is found', (_, change, restore) => {
  const before = processState()
  change()
  const after = processState()
  restore()
  expect(after).not.toEqual(before)
  expect(processState()).toEqual(before)
})
