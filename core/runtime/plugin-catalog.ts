import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { MillraceError } from '../errors.ts'
import { nearest } from '../mesh/edit-distance.ts'
import type { PluginFinder } from '../mesh/read-mesh.ts'
import type { Plugin } from '../plugin.ts'

/**
 * Finds plugins: the package's own by folder (`connectors/<name>/index`), others by path or npm package name. Loads a plugin when it is asked for and
 * not before, so that a mesh pays only for what it uses.
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

  /** Every plugin of the package; one that does not load is given as its error. */
  async all(): Promise<readonly { readonly name: string; readonly plugin: Plugin<unknown> | MillraceError }[]> {
    return Promise.all(
      this.names.map(async (name) => ({
        name,
        plugin: await this.find(name, undefined, '.').catch((error: unknown) => {
          if (error instanceof MillraceError) return error
          throw error
        }),
      })),
    )
  }

  find(kind: string, from: string | undefined, dir: string): Promise<Plugin<unknown>> {
    const key = JSON.stringify([kind, from ?? null, from === undefined ? null : dir])
    let loading = this.#loaded.get(key)
    if (loading === undefined) {
      loading = this.#load(kind, from, dir)
      this.#loaded.set(key, loading)
    }
    return loading
  }

  async #load(kind: string, from: string | undefined, dir: string): Promise<Plugin<unknown>> {
    const file = from === undefined ? this.#own(kind) : resolveForeign(from, dir)
    let loaded: unknown
    try {
      loaded = ((await import(pathToFileURL(file).href)) as { default?: unknown }).default
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new MillraceError('config.unknown_plugin', `the plugin ${from ?? kind} does not load: ${why}`, {
        cause,
        fix: `repair ${from ?? `connectors/${kind}`} or its dependencies`,
      })
    }
    if (!isPlugin(loaded)) {
      throw new MillraceError('config.unknown_plugin', `${from ?? kind} has no plugin as its default export`, { fix: 'export default definePlugin({ … })' })
    }
    if (loaded.name !== kind) {
      throw new MillraceError('config.unknown_plugin', `${from ?? kind} is the plugin ${loaded.name}, not ${kind}`, { fix: `write kind: ${loaded.name}` })
    }
    return loaded
  }

  #own(kind: string): string {
    const file = this.names.includes(kind) ? entryOf(path.join(this.#dir, kind)) : null
    if (file !== null) return file
    const meant = nearest(kind, this.names)
    throw new MillraceError('config.unknown_plugin', `no plugin is called ${kind}`, {
      fix: meant === null ? `one of: ${this.names.join(', ')}; or say where yours is with plugin:` : `write kind: ${meant}`,
    })
  }
}

function entryOf(folder: string): string | null {
  return ['index.ts', 'index.js'].map((name) => path.join(folder, name)).find((file) => existsSync(file)) ?? null
}

function resolveForeign(from: string, dir: string): string {
  if (/^\.{0,2}\//.test(from)) {
    const file = path.resolve(dir, from)
    const found = path.extname(file) === '' ? entryOf(file) : existsSync(file) ? file : null
    if (found !== null) return found
    throw new MillraceError('config.unknown_plugin', `there is no plugin at ${from}`, { fix: 'give a path to its index file, relative to the mesh file' })
  }
  try {
    return createRequire(path.join(dir, 'package.json')).resolve(from)
  } catch (cause) {
    throw new MillraceError('config.unknown_plugin', `the package ${from} is not installed beside the mesh file`, { cause, fix: `npm install ${from}` })
  }
}

function isPlugin(value: unknown): value is Plugin<unknown> {
  if (typeof value !== 'object' || value === null) return false
  const plugin = value as Partial<Plugin<unknown>>
  return (
    (plugin.kind === 'source' || plugin.kind === 'sink') &&
    typeof plugin.name === 'string' &&
    typeof plugin.open === 'function' &&
    typeof plugin.check === 'function' &&
    plugin.config !== undefined
  )
}
