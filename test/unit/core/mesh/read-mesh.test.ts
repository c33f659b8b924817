import { mkdtempSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import type { Json } from '../../../../core/event/offset.ts'
import { formatFinding } from '../../../../core/mesh/mesh-finding.ts'
import { parseMesh } from '../../../../core/mesh/read-mesh.ts'
import { Secrets } from '../../../../core/mesh/secrets.ts'
import { Settings } from '../../../../core/mesh/settings.ts'
import { zodFindings } from '../../../../core/mesh/zod-findings.ts'
import { PluginCatalog } from '../../../../core/runtime/plugin-catalog.ts'
import { testPlugins } from './test-plugins.ts'

const GOOD = `mesh: quickstart
dataDir: state
log: embedded
topics: { partitions: 3, retention: 7d }
sources:
  shop:
    kind: river
    url: \${env:SHOP_URL}
    tables: [public.*]
    port: \${env:SHOP_PORT}
    topics: { compacted: true }
    snapshot: { parallel: 4 }
sinks:
  lake:
    kind: pond
    from: [shop, '!shop.public.tmp_*']
    warehouse: ./lake
`
const parse = (text: string) => parseMesh(text, 'x.mesh.yaml', testPlugins)
const shown = async (text: string) => (await parse(text)).findings.map(formatFinding)

describe('a mesh that is right', () => {
  test('is read with defaults, overrides and references kept', async () => {
    const { mesh, findings } = await parse(GOOD)
    expect(findings).toEqual([])
    const [shop] = mesh!.sources
    expect(shop).toMatchObject({
      name: 'shop',
      topics: { partitions: 3, retentionMs: 7 * 86_400_000, compacted: true, replicationFactor: null },
      snapshot: { mode: 'initial', parallel: 4 },
    })
    expect(mesh!.dataDir).toBe(path.resolve('state'))
    expect(JSON.stringify(shop!.settings)).toContain('${env:SHOP_URL}')
    const [lake] = mesh!.sinks
    expect(lake!.from.matches('shop.public.orders')).toBe(true)
    expect(lake!.from.matches('shop.public.tmp_1')).toBe(false)
    expect(lake!.from.matches('shopping.public.orders')).toBe(false)
  })

  test('gives typed settings when its secrets are there, and hides them in text', async () => {
    const { mesh } = await parse(GOOD)
    const secrets = new Secrets({ env: { SHOP_URL: 'postgres://u:hunt%40er2@h/d', SHOP_PORT: '5432' }, dir: '.' })
    expect(mesh!.sources[0]!.settings.resolve(secrets, '.')).toEqual({
      url: 'postgres://u:hunt%40er2@h/d',
      tables: ['public.*'],
      port: 5432,
      tls: false,
      mode: 'fast',
    })
    expect(mesh!.sinks[0]!.settings.resolve(secrets, '/m')).toEqual({ warehouse: '/m/lake', commitRows: 5 })
    for (const text of ['dial postgres://u:hunt%40er2@h/d failed', 'password hunt%40er2', 'password hunt@er2']) {
      expect(secrets.redact(text)).not.toMatch(/hunt/)
    }
  })

  test('reads a reference as a boolean or a number also where the setting may be a word instead', () => {
    const schema = z.strictObject({ binary: z.union([z.literal('auto'), z.boolean()]), most: z.union([z.literal('all'), z.int()]) })
    const at = { path: [], locate: () => ({ file: 'x', line: 1, column: 1 }) }
    const settings = new Settings({ binary: '${env:BINARY}', most: '${env:MOST}' }, schema, at)
    const resolved = (BINARY: string, MOST: string) => settings.resolve(new Secrets({ env: { BINARY, MOST }, dir: '.' }), '.')
    expect(settings.lint()).toEqual([])
    expect(resolved('false', '5')).toEqual({ binary: false, most: 5 })
    expect(resolved('auto', 'all')).toEqual({ binary: 'auto', most: 'all' })
    expect(() => resolved('maybe', '5')).toThrow(expect.objectContaining({ code: 'config.invalid' }))
  })

  test('reads references within the object that a setting may be, as the first kind of object that they make right', () => {
    const object = z.strictObject({
      ca: z.string().optional(),
      verify: z.boolean().optional(),
      port: z.union([z.literal('any'), z.int().positive()]).optional(),
    })
    const counted = z.strictObject({ ca: z.int(), verify: z.string() })
    const schema = z.strictObject({ tls: z.union([z.boolean(), object, counted]) })
    const resolved = (tls: Json, env: Record<string, string>) => {
      const settings = new Settings({ tls }, schema, { path: [], locate: () => ({ file: 'x', line: 1, column: 1 }) })
      expect(settings.lint()).toEqual([])
      return settings.resolve(new Secrets({ env, dir: '.' }), '.').tls
    }
    expect(resolved('${env:A}', { A: 'true' })).toBe(true)
    expect(resolved({ verify: '${env:A}' }, { A: 'false' })).toEqual({ verify: false })
    expect(resolved({ port: '${env:A}', verify: '${env:B}' }, { A: '5', B: 'true' })).toEqual({ port: 5, verify: true })
    expect(resolved({ port: '${env:A}' }, { A: 'any' })).toEqual({ port: 'any' })
    // what one kind wants as a text stays one, whatever it looks like
    expect(resolved({ ca: '${env:A}', verify: '${env:B}' }, { A: '7', B: 'true' })).toEqual({ ca: '7', verify: true })
    expect(resolved({ ca: '${env:A}', verify: '${env:B}' }, { A: '7', B: 'maybe' })).toEqual({ ca: 7, verify: 'maybe' })
    for (const env of [
      { A: 'x', B: 'maybe' },
      { A: '7.5.1', B: 'no' },
    ]) {
      expect(() => resolved({ ca: '${env:A}', verify: '${env:B}' }, env)).toThrow(expect.objectContaining({ code: 'config.invalid' }))
    }
    expect(() => resolved({ port: '${env:A}' }, { A: '-5' })).toThrow(expect.objectContaining({ code: 'config.invalid' }))
  })

  test('reads a secret from a file beside the mesh', async () => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-secret-'))
    writeFileSync(path.join(dir, 'url'), 'postgres://h/d\n')
    const { mesh } = await parse(GOOD.replace('${env:SHOP_URL}', '${file:url}'))
    const secrets = new Secrets({ env: { SHOP_PORT: '1' }, dir })
    expect(mesh!.sources[0]!.settings.resolve(secrets, dir)).toMatchObject({ url: 'postgres://h/d' })
  })

  test('names the missing secret and its place when it opens', async () => {
    const { mesh } = await parse(GOOD)
    const secrets = new Secrets({ env: {}, dir: '.' })
    expect(() => mesh!.sources[0]!.settings.resolve(secrets, '.')).toThrow(
      expect.objectContaining({
        code: 'config.secret_missing',
        message: 'the environment variable SHOP_URL is not set',
        where: { file: 'x.mesh.yaml', line: 8, column: 10 },
      }),
    )
  })

  test('judges the resolved value without printing it', async () => {
    const { mesh } = await parse(GOOD)
    const secrets = new Secrets({ env: { SHOP_URL: 'not-a-url-but-secret', SHOP_PORT: '99999' }, dir: '.' })
    try {
      mesh!.sources[0]!.settings.resolve(secrets, '.')
      expect.unreachable()
    } catch (error) {
      expect(String(error)).toMatch(/x\.mesh\.yaml:8:10 .*sources\.shop\.url/)
      expect(String(error)).toMatch(/sources\.shop\.port/)
      expect(String(error)).not.toContain('not-a-url')
    }
  })
})

describe('a mesh that is wrong', () => {
  test('tells every finding at once, with its place and the key that was meant', async () => {
    const text = `mesh: Quick Start
sorces: {}
sources:
  shop:
    kind: rivr
  two:
    kind: river
    url: nowhere
    tabels: [a]
    mode: fsat
    port: '1'
    snapshot: { mod: initial }
sinks:
  lake: { kind: pond, from: shpo, warehouse: 1 }
  sea: { kind: river, from: [] }
`
    const findings = await shown(text)
    expect(findings).toEqual([
      expect.stringMatching(/^x\.mesh\.yaml:1:7 config\.invalid: mesh: a name has/),
      expect.stringMatching(/^x\.mesh\.yaml:2:1 config\.invalid: unknown key sorces; did you mean sources\?\n {2}fix: write sources/),
      expect.stringMatching(/^x\.mesh\.yaml:5:11 config\.unknown_plugin: .*did you mean river\?/),
      expect.stringMatching(/^x\.mesh\.yaml:6:3 .*tables: is missing/),
      expect.stringMatching(/^x\.mesh\.yaml:8:10 .*url: invalid/),
      expect.stringMatching(/^x\.mesh\.yaml:9:5 .*unknown key tabels; did you mean tables\?/),
      expect.stringMatching(/^x\.mesh\.yaml:10:11 .*expected fast or slow/),
      expect.stringMatching(/^x\.mesh\.yaml:11:11 .*port: expected number/),
      expect.stringMatching(/^x\.mesh\.yaml:12:17 .*unknown key mod; did you mean mode\?/),
      expect.stringMatching(/^x\.mesh\.yaml:14:29 node\.unknown: .*did you mean shop\?/),
      expect.stringMatching(/^x\.mesh\.yaml:14:46 .*expected string/),
      expect.stringMatching(/^x\.mesh\.yaml:15:16 .*river is a source, not a sink/),
      expect.stringMatching(/^x\.mesh\.yaml:15:29 .*from: too small/),
    ])
  })

  test.each([
    ['topics: { partitions: 0 }', 'write a number from 1 to 4096'],
    ['topics: { partitions: "3" }', 'write a number, without quotes'],
    ['topics: { partitions: 1.5 }', 'write a whole number, without quotes'],
    [
      'topics: { retention: 7 days }',
      'write forever or a duration such as 90m, 12h, 7d (How long the log keeps changes: forever (the default), or a duration such as 7d)',
    ],
    ['topics: { compacted: yes }', 'write true or false, without quotes'],
    ['dataDir: 5', 'put the value in quotes'],
    ['dataDir: ""', 'write a text that is not empty'],
    ['log: kafak', 'one of: embedded, kafka'],
    ['log: { kind: kafka }', 'add brokers: (Brokers to ask first, as host:port)'],
    ['log: { kind: kafka, brokers: [] }', 'list at least 1'],
    ['log: { kind: kafka, brokers: [here] }', 'write host:port'],
    ['log: { kind: kafka, brokers: ["a:1"], compression: zip }', 'one of: none, gzip, snappy, lz4, zstd'],
    ['log: { kind: kafka, brokers: ["a:1"], sasl: { mechanism: PLAIN } }', 'give username and password, which this mechanism needs'],
    ['sources: []', 'write its entries below it, a line each, indented: name: value'],
    ['sources: {}', 'add one; mesh-config/quickstart.mesh.yaml has an example'],
    ['mesh: [', 'close every [ and { and put commas between what they hold'],
    ['? [a]\n: b', 'name one setting in front of the colon; a text with a colon in it goes into quotes'],
  ])('%s: fix: %s', async (line, fix) => {
    const { findings } = await parse(line)
    expect(findings.map((finding) => finding.fix)).toContain(fix)
  })

  const plugins = new PluginCatalog()
  test.each(plugins.names)('every finding on the settings of %s says what to write, and nothing that stands there', async (name) => {
    const { config } = await plugins.find(name, undefined, '.')
    const keys = Object.keys((z.toJSONSchema(config, { io: 'input', unrepresentable: 'any' }).properties as object | undefined) ?? {})
    const value = fc.letrec<{ value: unknown }>((tie) => ({
      value: fc.oneof(
        { maxDepth: 3 },
        fc.constantFrom('hunter2-hunter2', '', -1, 0, 2e9, 0.5, true, null),
        fc.array(tie('value'), { maxLength: 2 }),
        fc.dictionary(fc.constantFrom(...keys, 'kind', 'host', 'port', 'files', 'format', 'columns', 'accessKeyId', 'x'), tie('value'), { maxKeys: 3 }),
      ),
    })).value
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...keys, 'y'), value), (settings) => {
        const parsed = config.safeParse(settings)
        if (parsed.success) return
        const findings = zodFindings(parsed.error.issues, config, ['sources', 'it'], () => ({ file: 'x', line: 1, column: 1 }))
        expect(findings.length).toBeGreaterThan(0)
        for (const { message, fix } of findings) {
          expect(fix, message).toMatch(/^\w.{5,}$/)
          expect(`${message} ${fix}`).not.toMatch(/undefined|\[object|hunter2|invalid input/i)
        }
      }),
      { numRuns: 300 },
    )
  })

  test.each([
    ['mesh: a\nmesh: b\n', /2:1 .*unique/],
    ['mesh: &x a\ndataDir: *x\n', /2:10 .*aliases \(\*x\)/],
    ['mesh: !!binary aGk=\n', /1:16 .*no use for/],
    ['a: [\n', /config\.invalid/],
    ['mesh: a\n---\nmesh: b\n', /one YAML document/],
    ['', /empty|missing/],
    ['- 1\n', /expected/],
    ['mesh: a\n__proto__: { x: 1 }\nsources: {}\n', /2:1 .*__proto__/],
    ['mesh: a\ntopics: { partitions: 123456789012345678901 }\nsources: {}\n', /2:23 .*exactly/],
    ['mesh: a\ntopics: { retention: 7 days }\nsources: { s: { kind: river, url: "x://y", tables: [a] } }\n', /2:22 .*forever or a duration/],
    ['mesh: a\nlog: kafak\nsources: { s: { kind: river, url: "x://y", tables: [a] } }\n', /2:1 .*no such kind/],
    ['mesh: a\nlog: { kind: kafka, brokers: [a:1], compresion: zstd }\nsources: {}\n', /2:37 .*did you mean compression\?/],
    ['mesh: a\nsources: { s: { kind: river, url: "${evn:X}", tables: [a] } }\n', /2:35 .*neither/],
    ['mesh: a\nsources: { s: { kind: river, url: "x://y", tables: [a] } }\nsinks: { s: { kind: pond, from: s, warehouse: w } }\n', /3:10 .*source too/],
    ['mesh: a\nsources: { s: { kind: river, url: "x://y", tables: [a] } }\nsinks: { t: { kind: pond, from: "!s.*", warehouse: w } }\n', /no stream at all/],
    ['mesh: a\nsources: { Bad_Name: { kind: river, url: "x://y", tables: [a] } }\n', /2:12 .*lower-case/],
  ])('%j', async (text, expected) => {
    const { mesh, findings } = await parse(text)
    expect(mesh).toBeNull()
    expect(findings.map(formatFinding).join('\n')).toMatch(expected)
  })

  test('absurd nesting is a finding, not a crash', async () => {
    for (const bracket of ['[', '{a: ', '- ']) expect((await parse(bracket.repeat(50_000))).mesh).toBeNull()
  })

  test('refuses a secret in clear, with its place, and does not repeat it', async () => {
    const { mesh, findings } = await parse(GOOD.replace('${env:SHOP_URL}', 'postgres://u:hunter2@h/d'))
    expect(mesh).toBeNull()
    expect(findings.map(formatFinding)).toEqual([
      expect.stringMatching(/^x\.mesh\.yaml:8:10 config\.invalid: url holds a secret in clear text\n.*\$\{env:NAME\}/),
    ])
    expect(JSON.stringify(findings)).not.toContain('hunter2')
  })

  test('warns of one that opens a server of this machine only', async () => {
    const text = GOOD.replace('${env:SHOP_URL}', 'postgres://u:hunter2@localhost/d')
    const { mesh, findings } = await parse(text)
    expect(mesh).not.toBeNull()
    expect(findings.map(formatFinding)).toEqual([expect.stringMatching(/^x\.mesh\.yaml:8:10 warning config\.invalid: url holds a secret in clear text/)])
    expect(JSON.stringify(findings)).not.toContain('hunter2')
    const secrets = new Secrets({ env: { SHOP_PORT: '1' }, dir: '.' })
    mesh!.sources[0]!.settings.resolve(secrets, '.')
    expect(secrets.redact('hunter2')).toBe('[secret]')
  })

  test('never throws, whatever the text', async () => {
    const tokens = fc.constantFrom(
      'mesh:',
      ' a',
      '\n',
      '  ',
      '- ',
      '{',
      '}',
      '[',
      ']',
      ':',
      '&a',
      '*a',
      '!x',
      '"',
      "'",
      '|',
      '>',
      '#',
      '${env:A}',
      'sources:',
      'sinks:',
      'kind: river',
      '\t',
      '%',
      '?',
      '\0',
    )
    await fc.assert(
      fc.asyncProperty(fc.array(tokens, { maxLength: 40 }), async (parts) => {
        const { mesh, findings } = await parse(parts.join(''))
        expect(mesh !== null || findings.some(({ level }) => level === 'error')).toBe(true)
        for (const { where } of findings) expect(where.line >= 1 && where.column >= 1).toBe(true)
      }),
      { numRuns: 300 },
    )
  })

  test('any one character gone from a good mesh gives a mesh or findings with places', async () => {
    for (let i = 0; i < GOOD.length; i++) {
      const { mesh, findings } = await parse(GOOD.slice(0, i) + GOOD.slice(i + 1))
      if (mesh === null) expect(findings.length).toBeGreaterThan(0)
    }
  })
})
