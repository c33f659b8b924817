import { readFileSync } from 'node:fs'
import path from 'node:path'
import type { z } from 'zod'
import { asMillraceError, MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import type { Plugin } from '../plugin.ts'
import { nearest } from './edit-distance.ts'
import { type LocatedYaml, type Path, parseLocatedYaml } from './located-yaml.ts'
import type { Mesh, SinkNode, SourceNode, TopicSettings } from './mesh.ts'
import { findingsError, type MeshFinding } from './mesh-finding.ts'
import { logSchema, meshFrameSchema, nodeName, registrySchema, sinkFrameSchema, sourceFrameSchema } from './mesh-schema.ts'
import { clearSecretLevel } from './secrets.ts'
import { Settings } from './settings.ts'
import { compileStreamFilter, nodeOfPattern } from './stream-pattern.ts'
import { zodFindings } from './zod-findings.ts'

/** Where the lint gets plugins from; the runtime's catalog is the real one. */
export interface PluginFinder {
  /** Names of the plugins that are known without being loaded. */
  readonly names: readonly string[]
  /** `from` is the `plugin` key of the node, relative paths starting at `dir`. @throws config.unknown_plugin */
  find(kind: string, from: string | undefined, dir: string): Promise<Plugin<unknown>>
}

export interface MeshReading {
  /** Null when any finding is an error. */
  readonly mesh: Mesh | null
  /** In the order of the file. */
  readonly findings: readonly MeshFinding[]
}

/** Reads and lints a mesh file; needs no secret and no service. @throws config.invalid when the file cannot be read */
export function readMesh(file: string, plugins: PluginFinder): Promise<MeshReading> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new MillraceError('config.invalid', `the mesh file ${file} cannot be read`, {
      cause,
      fix: 'name an existing file; mesh-config/quickstart.mesh.yaml is an example',
    })
  }
  return parseMesh(text, file, plugins)
}

/** @throws config.invalid with every error in its message */
export async function loadMesh(file: string, plugins: PluginFinder): Promise<Mesh> {
  const { mesh, findings } = await readMesh(file, plugins)
  if (mesh !== null) return mesh
  throw findingsError(findings) ?? new MillraceError('config.invalid', `${file} is not a mesh`)
}

/** Parses and lints the text of a mesh file: all findings at once, each with its place and its fix. Never throws for what the text holds. */
export async function parseMesh(text: string, file: string, plugins: PluginFinder): Promise<MeshReading> {
  const yaml = parseLocatedYaml(text, file)
  const findings: MeshFinding[] = yaml.problems.map((problem) => ({ level: 'error', code: 'config.invalid', ...problem }))
  const mesh = yaml.value === null ? null : await new MeshReader(yaml, file, plugins, findings).read()
  findings.sort((a, b) => a.where.line - b.where.line || a.where.column - b.where.column)
  return { mesh: findings.some((finding) => finding.level === 'error') ? null : mesh, findings }
}

class MeshReader {
  readonly #yaml: LocatedYaml
  readonly #file: string
  readonly #dir: string
  readonly #plugins: PluginFinder
  readonly #findings: MeshFinding[]

  constructor(yaml: LocatedYaml, file: string, plugins: PluginFinder, findings: MeshFinding[]) {
    this.#yaml = yaml
    this.#file = file
    this.#dir = path.dirname(path.resolve(file))
    this.#plugins = plugins
    this.#findings = findings
  }

  async read(): Promise<Mesh | null> {
    const value = withLongForms(this.#yaml.value)
    const root = isObject(value) ? value : {}
    this.#findClearSecrets(value, [])
    // log and registry may hold references, which their own Settings judge
    const log = this.#settings(root.log ?? { kind: 'embedded' }, logSchema, ['log'])
    const registry = this.#settings(root.registry ?? { kind: 'embedded' }, registrySchema, ['registry'])
    const frame = meshFrameSchema.safeParse(isObject(value) ? { ...value, log: undefined, registry: undefined } : value)
    if (!frame.success) this.#findings.push(...zodFindings(frame.error.issues, meshFrameSchema, [], this.#yaml.locate))
    const sourceNames = isObject(root.sources) ? Object.keys(root.sources) : []
    const sinks = isObject(root.sinks) ? root.sinks : {}
    if (isObject(root.sources) && sourceNames.length === 0)
      this.#error(['sources'], 'a mesh has at least one source', 'add one; mesh-config/quickstart.mesh.yaml has an example')
    for (const name of Object.keys(sinks))
      if (sourceNames.includes(name)) this.#error(['sinks', name], `${name} is the name of a source too`, 'rename one of them', 'key')
    const topics = frame.success ? frame.data.topics : null
    const sourceNodes: (SourceNode | null)[] = []
    for (const name of sourceNames) sourceNodes.push(await this.#source(name, (root.sources as Record<string, Json>)[name]!, topics))
    const sinkNodes: (SinkNode | null)[] = []
    for (const [name, raw] of Object.entries(sinks)) sinkNodes.push(await this.#sink(name, raw, sourceNames))
    if (!frame.success) return null
    return {
      name: frame.data.mesh,
      file: this.#file,
      dir: this.#dir,
      dataDir: path.resolve(this.#dir, frame.data.dataDir),
      log,
      registry,
      sources: sourceNodes.filter((node) => node !== null),
      sinks: sinkNodes.filter((node) => node !== null),
    }
  }

  async #source(name: string, raw: Json, defaults: Defaults | null): Promise<SourceNode | null> {
    const at: Path = ['sources', name]
    const plugin = await this.#plugin(name, raw, at, 'source')
    if (plugin === null || plugin.kind !== 'source') return null
    const settings = this.#settings(without(raw, sourceFrameSchema), plugin.config, at, Object.keys(sourceFrameSchema.shape))
    const frame = sourceFrameSchema.safeParse(raw)
    if (!frame.success || defaults === null) return null
    const set = Object.fromEntries(Object.entries(frame.data.topics ?? {}).filter(([, value]) => value !== undefined)) as Partial<Defaults>
    const { retention, ...rest } = { ...defaults, ...set }
    const topics: TopicSettings = { ...rest, retentionMs: retention }
    return { role: 'source', name, plugin, settings, topics, snapshot: frame.data.snapshot, where: this.#yaml.locate(at, 'key') }
  }

  async #sink(name: string, raw: Json, sourceNames: readonly string[]): Promise<SinkNode | null> {
    const at: Path = ['sinks', name]
    const frame = sinkFrameSchema.safeParse(raw)
    if (frame.success) this.#checkPatterns(frame.data.from, isObject(raw) && Array.isArray(raw.from), [...at, 'from'], sourceNames)
    const plugin = await this.#plugin(name, raw, at, 'sink')
    if (plugin === null || plugin.kind !== 'sink') return null
    const settings = this.#settings(without(raw, sinkFrameSchema), plugin.config, at, Object.keys(sinkFrameSchema.shape))
    if (!frame.success) return null
    return {
      role: 'sink',
      name,
      plugin,
      settings,
      from: compileStreamFilter(frame.data.from),
      onRejected: frame.data.onRejected,
      where: this.#yaml.locate(at, 'key'),
    }
  }

  #checkPatterns(patterns: readonly string[], isList: boolean, at: Path, sourceNames: readonly string[]): void {
    patterns.forEach((pattern, i) => {
      const node = nodeOfPattern(pattern)
      if (sourceNames.includes(node)) return
      const meant = nearest(node, sourceNames)
      const fix = meant === null ? `name one of the sources: ${sourceNames.join(', ')}` : `write ${pattern.replace(node, meant)}`
      this.#findings.push({
        level: 'error',
        code: 'node.unknown',
        message: `${pattern} names no source of this mesh${meant === null ? '' : `; did you mean ${meant}?`}`,
        fix,
        where: this.#yaml.locate(isList ? [...at, i] : at),
      })
    })
    if (patterns.every((pattern) => pattern.startsWith('!')))
      this.#error(at, 'only patterns with ! take no stream at all', `add a source: [${sourceNames[0] ?? 'shop'}, …]`)
  }

  async #plugin(name: string, raw: Json, at: Path, role: 'source' | 'sink'): Promise<Plugin<unknown> | null> {
    const named = nodeName.safeParse(name)
    if (!named.success) this.#error(at, `${name}: ${named.error.issues[0]!.message}`, 'rename the node', 'key')
    // a wrong type of node or kind is reported by the frame already
    if (!isObject(raw) || typeof raw.kind !== 'string') return null
    const from = typeof raw.plugin === 'string' ? raw.plugin : undefined
    try {
      const plugin = await this.#plugins.find(raw.kind, from, this.#dir)
      if (plugin.kind === role) return plugin
      this.#error([...at, 'kind'], `${raw.kind} is a ${plugin.kind}, not a ${role}`, `move it to ${plugin.kind}s`)
    } catch (error) {
      const { code, message, fix } = asMillraceError(error)
      const meant = from === undefined ? nearest(raw.kind, this.#plugins.names) : null
      const hint = meant !== null && meant !== raw.kind ? `write kind: ${meant}` : (fix ?? 'millrace plugins lists what there is')
      this.#findings.push({
        level: 'error',
        code,
        message: meant !== null && meant !== raw.kind ? `${message}; did you mean ${meant}?` : message,
        where: this.#yaml.locate([...at, from === undefined ? 'kind' : 'plugin']),
        fix: hint,
      })
    }
    return null
  }

  #settings<T>(raw: Json, schema: z.ZodType<T>, at: Path, frameKeys: readonly string[] = []): Settings<T> {
    const settings = new Settings(raw, schema, { path: at, locate: this.#yaml.locate, frameKeys })
    this.#findings.push(...settings.lint())
    return settings
  }

  #findClearSecrets(value: Json, at: Path): void {
    if (typeof value === 'string') {
      const key = String(at.at(-1))
      const level = clearSecretLevel(key, value)
      if (level === null) return
      this.#findings.push({
        level,
        code: 'config.invalid',
        message: `${key} holds a secret in clear text${level === 'warning' ? ', which is taken since its server is this machine' : ''}`,
        fix: 'write ${env:NAME} or ${file:path} in its place',
        where: this.#yaml.locate(at),
      })
    } else if (Array.isArray(value)) for (const [i, item] of value.entries()) this.#findClearSecrets(item as Json, [...at, i])
    else if (isObject(value)) for (const [key, item] of Object.entries(value)) this.#findClearSecrets(item, [...at, key])
  }

  #error(at: Path, message: string, fix: string, what: 'key' | 'value' = 'value'): void {
    this.#findings.push({ level: 'error', code: 'config.invalid', message, fix, where: this.#yaml.locate(at, what) })
  }
}

type Defaults = z.output<typeof meshFrameSchema>['topics']

/** `log: embedded` is short for `log: { kind: embedded }`. */
function withLongForms(value: Json | null): Json {
  if (!isObject(value)) return value
  const long = (short: Json | undefined): Json | undefined => (typeof short === 'string' ? { kind: short } : short)
  const out: Record<string, Json> = { ...value }
  for (const key of ['log', 'registry']) if (value[key] !== undefined) out[key] = long(value[key])!
  return out
}

function without(raw: Json, frame: { readonly shape: object }): Json {
  return isObject(raw) ? Object.fromEntries(Object.entries(raw).filter(([key]) => !Object.hasOwn(frame.shape, key))) : {}
}

function isObject(value: Json | null | undefined): value is { readonly [key: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
