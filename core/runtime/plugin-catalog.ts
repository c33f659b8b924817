import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { MillraceError } from '../errors.ts'
import { nearest } from '../mesh/edit-distance.ts'
import type { PluginFinder } from '../mesh/read-mesh.ts'
import type { Plugin } from '../plugin.ts'

/** What an npm package is called that is found by its kind alone; followed by it. */
const PACKAGE = 'millrace-plugin-'

/**
 * Finds plugins: the package's own by folder (`connectors/<name>/index`); others by path or npm package name, or as the package `millrace-plugin-<kind>`
 * that is installed beside the mesh file. Loads a plugin when it is asked for and not before, so that a mesh pays only for what it uses.
 */
export class PluginCatalog implements PluginFinder {
  readonly names: readonly string[]
  readonly #dir: string
  readonly #loaded = new Map<string, Promise<Plugin<unknown>>>()

  /** `connectorsDir`: the folder whose sub-folders are plugins; the package's own when absent. */
  constructor(connectorsDir: string = fileURLToPath(new URL('../../connectors/', import.meta.url))) {
    this.#dir = connectorsDir
    this.names = existsSync(connectorsDir)
      ? readdirSync(connectorsDir, { withFileTypes: true })
          .filter((entry) => entry.isDirectory() && entryOf(path.join(connectorsDir, entry.name)) !== null)
          .map((entry) => entry.name)
          .sort()
      : []
  }

  /** Every plugin of the package and, with `dir`, those installed there as `millrace-plugin-…`; one that does not load is given as its error. */
  async all(dir?: string): Promise<readonly { readonly name: string; readonly plugin: Plugin<unknown> | MillraceError }[]> {
    const names = [...this.names, ...(dir === undefined ? [] : installedIn(dir).filter((name) => !this.names.includes(name)))]
    return Promise.all(
      names.map(async (name) => ({
        name,
        plugin: await this.find(name, undefined, dir ?? '.').catch((error: unknown) => {
          if (error instanceof MillraceError) return error
          throw error
        }),
      })),
    )
  }

  /** @throws config.unknown_plugin, which says where it was looked for */
  find(kind: string, from: string | undefined, dir: string): Promise<Plugin<unknown>> {
    const key = JSON.stringify([kind, from ?? null, this.names.includes(kind) && from === undefined ? null : dir])
    let loading = this.#loaded.get(key)
    if (loading === undefined) {
      loading = this.#find(kind, from, dir)
      this.#loaded.set(key, loading)
    }
    return loading
  }

  /** The plugin at a path or in a package, whatever its kind. @throws config.unknown_plugin */
  at(from: string, dir: string): Promise<Plugin<unknown>> {
    return load(from, resolveForeign(from, dir))
  }

  async #find(kind: string, from: string | undefined, dir: string): Promise<Plugin<unknown>> {
    const plugin = from === undefined ? await this.#byKind(kind, dir) : await this.at(from, dir)
    if (plugin.name === kind) return plugin
    throw new MillraceError('config.unknown_plugin', `${from ?? kind} is the plugin ${plugin.name}, not ${kind}`, { fix: `write kind: ${plugin.name}` })
  }

  #byKind(kind: string, dir: string): Promise<Plugin<unknown>> {
    const file = this.names.includes(kind) ? entryOf(path.join(this.#dir, kind)) : null
    if (file !== null) return load(kind, file)
    const name = `${PACKAGE}${kind}`
    if (installedIn(dir).includes(kind)) return load(name, resolveForeign(name, dir))
    const meant = nearest(kind, this.names)
    throw new MillraceError(
      'config.unknown_plugin',
      `no plugin is called ${kind}: it is none of Millrace's own (${this.names.join(', ')}), and no package ${name} is installed in ${path.resolve(dir)} or above`,
      { fix: meant === null ? `npm install ${name}, or say where yours is with plugin:` : `write kind: ${meant}` },
    )
  }
}

async function load(name: string, file: string): Promise<Plugin<unknown>> {
  let loaded: unknown
  try {
    loaded = ((await import(pathToFileURL(file).href)) as { default?: unknown }).default
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new MillraceError('config.unknown_plugin', `the plugin ${name} does not load: ${why}`, { cause, fix: `repair ${file} or its dependencies` })
  }
  const lacks = lackOf(loaded)
  if (lacks === null) return loaded as Plugin<unknown>
  throw new MillraceError('config.unknown_plugin', `${name} has no plugin as its default export: ${lacks}`, {
    fix: `export default definePlugin({ … }) in ${file}`,
  })
}

/** Kinds of the packages `millrace-plugin-…` that Node would find from a folder. */
function installedIn(dir: string): readonly string[] {
  const kinds = new Set<string>()
  for (let folder = path.resolve(dir); ; folder = path.dirname(folder)) {
    const modules = path.join(folder, 'node_modules')
    if (existsSync(modules)) for (const name of readdirSync(modules)) if (name.startsWith(PACKAGE)) kinds.add(name.slice(PACKAGE.length))
    if (folder === path.dirname(folder)) return [...kinds].sort()
  }
}

function entryOf(folder: string): string | null {
  return ['index.ts', 'index.js'].map((name) => path.join(folder, name)).find((file) => existsSync(file)) ?? null
}

function resolveForeign(from: string, dir: string): string {
  if (/^\.{0,2}\//.test(from) || from === '.' || from === '..') {
    const file = path.resolve(dir, from)
    const found = path.extname(file) === '' ? entryOf(file) : existsSync(file) ? file : null
    if (found !== null) return found
    const looked = path.extname(file) === '' ? `${file}/index.ts and index.js` : file
    throw new MillraceError('config.unknown_plugin', `there is no plugin at ${from}: looked for ${looked}`, {
      fix: 'give a path to its folder or index file, relative to the mesh file',
    })
  }
  try {
    return createRequire(path.join(path.resolve(dir), 'package.json')).resolve(from)
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'MODULE_NOT_FOUND') {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new MillraceError('config.unknown_plugin', `the package ${from} cannot be used: ${why}`, {
        cause,
        fix: 'its "exports" must name a built file as "."',
      })
    }
    throw new MillraceError('config.unknown_plugin', `the package ${from} is not installed in ${path.resolve(dir)} or above`, {
      cause,
      fix: `npm install ${from} there, and build it if it is yours`,
    })
  }
}

/** What a value lacks to be a plugin; null: nothing. */
function lackOf(value: unknown): string | null {
  if (value === undefined) return 'it exports no default'
  if (typeof value !== 'object' || value === null) return `it is a ${typeof value}`
  const plugin = value as Record<string, unknown>
  if (plugin.kind !== 'source' && plugin.kind !== 'sink') return "its kind is neither 'source' nor 'sink'"
  if (typeof plugin.name !== 'string') return 'it has no name'
  if (typeof plugin.config !== 'object' || plugin.config === null || !('parse' in plugin.config)) return 'its config is no zod schema'
  const wanted = plugin.kind === 'source' ? ['open', 'openReader', 'check'] : ['open', 'check']
  const missing = wanted.find((name) => typeof plugin[name] !== 'function')
  if (missing !== undefined) return `it has no function ${missing}`
  return plugin.kind === 'source' && !Array.isArray(plugin.sourceFields) ? 'it has no sourceFields' : null
}
