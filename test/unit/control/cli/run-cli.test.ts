import { mkdtempSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { Readable, Writable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { Command } from '../../../../control/cli/command.ts'
import { COMMANDS } from '../../../../control/cli/commands.ts'
import { runCli } from '../../../../control/cli/run-cli.ts'
import { MillraceError } from '../../../../core/errors.ts'

async function cli(args: readonly string[], options: { commands?: typeof COMMANDS; env?: Record<string, string>; cwd?: string } = {}) {
  const collect = () => {
    const chunks: string[] = []
    const stream = new Writable({
      write(chunk, _, done) {
        chunks.push(String(chunk))
        done()
      },
    })
    return { stream, text: () => chunks.join('') }
  }
  const [out, err] = [collect(), collect()]
  const { env = {}, cwd = os.tmpdir() } = options
  const io = { stdin: Readable.from([]), stdout: out.stream, stderr: err.stream, env, cwd, signal: new AbortController().signal }
  const exitCode = await runCli(args, options.commands ?? COMMANDS, io)
  return { exitCode, out: out.text(), err: err.text() }
}

const failing = (error: Error) => ({ fail: async () => failingWith(error) })

const failingWith = (error: Error): Command => ({
  name: 'fail',
  summary: 's',
  help: 'millrace fail',
  options: {},
  arguments: [0, 0],
  run: async ({ secrets }) => {
    secrets('.').resolve('${env:PASSWORD}', { file: 'f', line: 1, column: 1 })
    throw error
  },
})

describe('the command line', () => {
  test('teaches: the overview and a page with examples for every command', async () => {
    const overview = await cli(['--help'])
    expect(overview.exitCode).toBe(0)
    for (const [name, load] of Object.entries(COMMANDS)) {
      const { summary, ...command } = await load()
      expect(command.name).toBe(name)
      expect(overview.out).toMatch(new RegExp(`${name} +${summary}`))
      const page = await cli([name, '--help'])
      expect([page.exitCode, page.err]).toEqual([0, ''])
      expect(page.out).toContain(`millrace ${name}`)
      expect(page.out).toContain('Examples:')
      expect((await cli(['help', name])).out).toBe(page.out)
    }
    expect((await cli([])).exitCode).toBe(2)
    expect((await cli(['--version'])).out).toMatch(/^\d+\.\d+\.\d+\n$/)
  })

  test.each([
    [['chek', 'x'], /no command is called chek/, /millrace check/],
    [['check'], /something is missing/, /usage: millrace check FILE/],
    [['check', 'a', 'b'], /b is one too many/, /usage/],
    [['run', 'x', '--prot', '1'], /Unknown option '--prot'/, /did you mean --port\?/],
    [['run', 'nowhere.yaml'], /cannot be read/, /name an existing file/],
    [['tap', 's'], /needs the mesh/, /--mesh FILE/],
    [['status'], /not running/, /millrace run/],
  ])('%j is one error with its fix and no stack', async (args, message, fix) => {
    const { exitCode, out, err } = await cli(args, { cwd: mkdtempSync(path.join(os.tmpdir(), 'millrace-cli-')) })
    expect(out).toBe('')
    expect(err).toMatch(message)
    expect(err).toMatch(fix)
    expect(err).not.toMatch(/\n\s+at /)
    expect(exitCode).toBe(args[0] === 'status' ? 3 : 2)
  })

  test.each([
    ['config.invalid', 2],
    ['source.unreachable', 3],
    ['source.history_lost', 1],
    ['schema.incompatible', 2],
    ['record.rejected', 1],
    ['sink.conflict', 1],
  ] as const)('%s ends with %d', async (code, exitCode) => {
    const run = await cli(['fail'], { commands: failing(new MillraceError(code, 'no', { fix: 'do' })), env: { PASSWORD: 'hunter22' } })
    expect(run).toEqual({ exitCode, out: '', err: `millrace: ${code}: no\n  fix: do\n` })
  })

  test('masks secrets in errors, stacks and JSON, and shows stacks when asked or for a bug', async () => {
    const commands = failing(new MillraceError('source.unreachable', 'password hunter22 refused', { cause: new Error('sent hunter22') }))
    const env = { PASSWORD: 'hunter22' }
    const json = await cli(['fail', '--json', '--debug'], { commands, env })
    expect(JSON.parse(json.out)).toEqual({
      command: 'fail',
      ok: false,
      result: null,
      error: { code: 'source.unreachable', category: 'unavailable', message: 'password [secret] refused', fix: null, where: null },
    })
    expect(json.err).toMatch(/\n\s+at [\s\S]*caused by Error: sent \[secret\]/)
    expect(json.out + json.err).not.toContain('hunter22')
    const bug = await cli(['fail'], { commands: failing(new TypeError('oops')), env })
    expect([bug.exitCode, bug.err]).toEqual([1, expect.stringMatching(/invariant\.broken: oops[\s\S]*\n\s+at /)])
  })
})

describe('check', () => {
  const write = (text: string) => {
    const file = path.join(mkdtempSync(path.join(os.tmpdir(), 'millrace-check-')), 'x.mesh.yaml')
    writeFileSync(file, text)
    return file
  }

  test('tells every mistake with its place, as text and as JSON', async () => {
    const file = write('mesh: x\nlog: kafak\nsources:\n  shop: { kind: nothing }\n')
    const text = await cli(['check', file])
    expect(text.exitCode).toBe(2)
    expect(text.out).toContain(`${file}:2:1 config.invalid: log.kind: no such kind`)
    expect(text.out).toContain(`${file}:4:17 config.unknown_plugin`)
    expect(text.out).toContain('2 errors')
    const { ok, result } = JSON.parse((await cli(['check', file, '--json'])).out)
    expect([ok, result.findings.length, result.findings[0].where.line]).toEqual([false, 2, 2])
  })
})

describe('schemas of a registry that wants a login', () => {
  const expected = { basic: `Basic ${Buffer.from('reader:hunt-er2').toString('base64')}`, bearer: 'Bearer hunt-er2' }

  async function withRegistry(work: (host: string) => Promise<void>): Promise<void> {
    const server = http.createServer((request, response) => {
      const { authorization } = request.headers
      const isKnown = authorization === expected.basic || authorization === expected.bearer
      response.writeHead(isKnown ? 200 : 401, { 'content-type': 'application/json' })
      const sent = String(authorization).replace(/^Basic (.*)/, (_, text: string) => Buffer.from(text, 'base64').toString())
      response.end(JSON.stringify(isKnown ? [] : { error_code: 401, message: `not ${sent}` }))
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      await work(`127.0.0.1:${(server.address() as AddressInfo).port}`)
    } finally {
      server.close()
    }
  }

  test('takes it from the environment, or from the URL, and shows it nowhere', async () => {
    await withRegistry(async (host) => {
      const env = { PASSWORD: 'hunt-er2', WRONG: 'swordfish' }
      const list = (...more: string[]) => cli(['schemas', 'list', ...more], { env })
      for (const login of [
        ['--url', `http://${host}`, '--user', 'reader:${env:PASSWORD}'],
        ['--url', `http://${host}`, '--token', '${env:PASSWORD}'],
        ['--url', `http://reader:hunt-er2@${host}`],
      ])
        expect(await list(...login)).toMatchObject({ exitCode: 0, out: 'no subjects\n' })
      for (const login of [
        ['--url', `http://${host}`, '--user', 'reader:${env:WRONG}'],
        ['--url', `http://reader:swordfish@${host}`],
      ]) {
        const refused = await list(...login)
        expect(refused.exitCode).toBe(2)
        expect(refused.err + refused.out).not.toContain('swordfish')
      }
      const clear = await list('--url', `http://${host}`, '--user', 'reader:hunt-er2')
      expect([clear.exitCode, clear.err]).toEqual([2, expect.stringContaining("--user 'NAME:${env:VARIABLE}'")])
    })
  })
})
