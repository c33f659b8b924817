/** What npm publishes: packed, installed in an empty folder, run and compiled against there. */
import { execFile, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { OLD_NODE, oldNodeBin, oldNodeSkipReason } from '../services/old-node.ts'

const exec = promisify(execFile)
const ROOT = path.resolve('.')
const oldNodeSkip = await oldNodeSkipReason()
if (oldNodeSkip !== null && process.env.MILLRACE_FORBID_SKIP) throw new Error(`skipping is forbidden: ${oldNodeSkip}`)
const { version, devDependencies } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string; devDependencies: Record<string, string> }
// npm and what it starts must find this Node first
const ENV = { ...process.env, PATH: `${path.dirname(process.execPath)}:${path.join(ROOT, 'node_modules/.bin')}:${process.env.PATH}` }
/** What the author of a plugin installs besides. */
const AUTHORS = ['vitest', 'fast-check', '@types/node']
let dir: string
let packed: readonly string[]

const run = (command: string, args: readonly string[], cwd = dir, env: NodeJS.ProcessEnv = ENV) =>
  exec(command, [...args], { cwd, env, maxBuffer: 64_000_000 }).then(
    ({ stdout, stderr }) => ({ code: 0, stdout, stderr }),
    (error: { code: number; stdout: string; stderr: string }) => ({ code: error.code, stdout: error.stdout, stderr: error.stderr }),
  )

describe('the npm package', { timeout: 900_000 }, () => {
  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-package-'))
    const pack = await run('npm', ['pack', '--json', '--pack-destination', dir], ROOT)
    expect(pack.code, pack.stderr).toBe(0)
    const [{ filename, files }] = JSON.parse(pack.stdout.slice(pack.stdout.indexOf('[\n')))
    packed = files.map((file: { path: string }) => file.path)
    writeFileSync(path.join(dir, 'package.json'), '{"name":"trial","private":true,"type":"module"}')
    const install = await run('npm', [
      'install',
      '--prefer-offline',
      '--fetch-retries=5',
      '--no-audit',
      '--no-fund',
      `./${filename}`,
      ...AUTHORS.map((name) => `${name}@${devDependencies[name]}`),
    ])
    expect(install.code, install.stderr).toBe(0)
  })

  afterAll(() => rmSync(dir, { recursive: true, force: true }))

  test('holds the build, the templates of plugins, and no other source, test or tool', () => {
    expect(packed).toContain('dist/core/plugin.d.ts')
    expect(packed).toContain('mesh-config/mesh.schema.json')
    const odd = packed.filter(
      (file) => !/^(dist\/.*\.(js|d\.ts)|control\/cli\/(millrace\.js|templates\/.*)|mesh-config\/.*|package\.json|LICENSE|[A-Z]+\.md)$/.test(file),
    )
    expect(odd).toEqual([])
  })

  test('its command runs, finds its plugins and checks a mesh', async () => {
    expect(await run('npx', ['millrace', '--version'])).toMatchObject({ code: 0, stdout: `${version}\n` })
    const plugins = await run('npx', ['millrace', 'plugins', '--json'])
    expect(JSON.parse(plugins.stdout).result.map(({ name, error }: { name: string; error: unknown }) => [name, error])).toEqual(
      readdirSync(path.join(ROOT, 'connectors'))
        .sort()
        .map((name) => [name, null]),
    )
    const mesh = path.join(dir, 'node_modules/millrace/mesh-config/quickstart.mesh.yaml')
    const check = await run('npx', ['millrace', 'check', mesh, '--offline'])
    expect(check.code, check.stdout).toBe(0)
    expect(check.stdout).toContain('the file is in order (1 source, 2 sinks)')
    const wrong = path.join(dir, 'wrong.mesh.yaml')
    writeFileSync(wrong, 'mesh: x\nsuorces: {}\n')
    expect(await run('npx', ['millrace', 'check', wrong])).toMatchObject({
      code: 2,
      stdout: expect.stringContaining('2:1 config.invalid: unknown key suorces; did you mean sources?'),
    })
  })

  test('a connector compiles against its types, and a wrong one does not', async () => {
    const plugin = (kind: string) => `import { definePlugin, MillraceError } from 'millrace'
import { z } from 'zod'
export default definePlugin({
  kind: '${kind}',
  name: 'pond',
  summary: 'A sink.',
  config: z.strictObject({ path: z.string().describe('Where.') }),
  check: async (config) => [{ level: 'ok', subject: config.path, message: 'fine' }],
  open: async () => { throw new MillraceError('sink.unreachable', 'not built yet') },
})
`
    writeFileSync(path.join(dir, 'good.ts'), plugin('sink'))
    writeFileSync(path.join(dir, 'bad.ts'), plugin('sunk'))
    const compilerOptions = { noEmit: true, strict: true, skipLibCheck: true, module: 'nodenext', target: 'es2024', types: [] }
    const compile = (file: string) => {
      writeFileSync(path.join(dir, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: [file] }))
      return run('tsc', ['-p', '.'])
    }
    expect(await compile('good.ts')).toMatchObject({ code: 0, stdout: '' })
    expect((await compile('bad.ts')).stdout).toContain('sunk')
  })

  test('the contract suites of millrace/testing, and their types, are all there', async () => {
    const written = `import * as testing from 'millrace/testing'
import { EXTREMES, type Item, type LogCapabilities, logContract, type ProvisionedLog, type ProvisionedSource, type RegistryUnderTest } from 'millrace/testing'
import { registryContract, type SinkCapabilities, type SinkProvision, type SourceCapabilities, sinkContract, sourceContract } from 'millrace/testing'
import type { TypedTable, Write } from 'millrace/testing'
import { expect, test } from 'vitest'
export const ofLog = (open: () => Promise<ProvisionedLog>, can: LogCapabilities) => logContract('mine', open, can)
export const ofRegistry = (open: () => Promise<RegistryUnderTest>) => registryContract('mine', open)
export const ofSink = (open: () => Promise<SinkProvision>, can: SinkCapabilities) => sinkContract('mine', open, can)
export const ofSource = (open: () => Promise<ProvisionedSource>, can: SourceCapabilities) => sourceContract('mine', open, can)
export type Table = readonly [TypedTable, Write, Item]
test('suites', () => {
  expect(Object.keys(testing).sort()).toEqual(['EXTREMES', 'logContract', 'registryContract', 'sinkContract', 'sourceContract'])
  expect(EXTREMES.find(({ name }) => name === 'int64')?.values).toContain(2n ** 63n - 1n)
})
`
    writeFileSync(path.join(dir, 'suites.test.ts'), written)
    const compilerOptions = { noEmit: true, strict: true, skipLibCheck: true, module: 'nodenext', target: 'es2024', types: ['node'] }
    writeFileSync(path.join(dir, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['suites.test.ts'] }))
    expect(await run('tsc', ['-p', '.'])).toMatchObject({ code: 0, stdout: '' })
    const suite = await run('npx', ['vitest', 'run', 'suites.test.ts'])
    expect(suite.code, suite.stdout.slice(-3000)).toBe(0)
  })

  test.each([
    'source',
    'sink',
  ] as const)('millrace new %s: what it writes passes its contract suite, compiles, and runs in a mesh that is equal', async (kind) => {
    const at = path.join(dir, kind)
    expect((await run('npx', ['millrace', 'new', kind, `my-${kind}`, '--dir', at])).stdout).toContain('index.test.ts')
    expect((await run('npx', ['millrace', 'new', kind, `my-${kind}`, '--dir', at])).stderr).toContain('is not empty')
    expect((await run('npx', ['millrace', 'plugins', `./${kind}`, '--json'])).stdout).toContain(`"name":"my-${kind}"`)
    const suite = await run('npm', ['test'], at)
    expect(suite.code, suite.stdout.slice(-3000)).toBe(0)
    expect(await run('tsc', ['-p', '.'], at)).toMatchObject({ code: 0, stdout: '' })
    expect(existsSync(path.join(at, 'dist/index.js'))).toBe(true)
    const check = await run('npx', ['millrace', 'check', 'mesh.yaml'], at)
    expect(check.code, check.stdout).toBe(0)
    const child = spawn(process.execPath, [path.join(dir, 'node_modules/millrace/control/cli/millrace.js'), 'run', 'mesh.yaml'], {
      cwd: at,
      env: ENV,
      stdio: 'ignore',
    })
    const ended = new Promise((resolve) => child.once('close', resolve))
    try {
      for (const deadline = Date.now() + 180_000; ; ) {
        const audit = await run('npx', ['millrace', 'audit', 'mesh.yaml', '--json'], at)
        const { result } = JSON.parse(audit.stdout) as { result: { tables?: unknown[] } | null }
        if (audit.code === 0 && JSON.stringify(result).includes('items')) break
        expect(Date.now(), audit.stdout + audit.stderr).toBeLessThan(deadline)
      }
    } finally {
      child.kill('SIGINT')
    }
    expect(await ended).toBe(0)
  })

  const OLD = 'a real Node 20 says in one sentence which one the installed command needs, and in a clone runs what npm run begins by the pinned one'
  test.skipIf(oldNodeSkip !== null)(`${OLD}${oldNodeSkip === null ? '' : ` (${oldNodeSkip})`}`, async () => {
    const old = { ...process.env, PATH: `${await oldNodeBin()}${path.delimiter}${process.env.PATH}` }
    expect(await run('node', ['--version'], dir, old)).toMatchObject({ code: 0, stdout: `v${OLD_NODE}\n` })
    const sentence = new RegExp(`^millrace needs Node 24 or later, and this is Node ${OLD_NODE.replaceAll('.', '\\.')}: .*\\n$`)
    for (const [command, ...args] of [
      ['npx', '--no-install', 'millrace', 'plugins'],
      ['node', 'node_modules/millrace/control/cli/millrace.js', '--version'],
    ] as const) {
      const { code, stdout, stderr } = await run(command, args, dir, old)
      expect([code, stdout, stderr]).toEqual([2, '', expect.stringMatching(sentence)])
    }
    const demo = await run('npm', ['run', '--silent', 'demo', '--', '--help'], ROOT, old)
    expect([demo.code, demo.stdout, demo.stderr]).toEqual([0, expect.stringContaining('npm run demo -- [options]'), ''])
    const pinned = await run('npm', ['exec', '--call', 'node --version'], ROOT, old)
    expect(pinned.stdout.trim()).toBe(process.version)
  })
})
