import { existsSync } from 'node:fs'
import type { Logger } from 'pino'
import { MillraceError } from '../errors.ts'
import type { Mesh, SourceNode } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import type { PluginContext, Provision } from '../plugin.ts'
import { DataFolder, nodeDirOf } from './data-folder.ts'

export interface NodeProvisions {
  readonly node: string
  readonly items: readonly Provision[]
}

/**
 * What a mesh keeps on its source servers, and its removal. Holds the data folder meanwhile, so that the mesh does not run. Progress stays as it is: a
 * source that is run again halts with `source.history_lost` instead of starting as new, since what changed in between is in no stream.
 */
export class Deprovision implements Disposable {
  readonly #mesh: Mesh
  readonly #sources: readonly SourceNode[]
  readonly #options: { readonly secrets: Secrets; readonly logger: Logger }
  readonly #folder: DataFolder | null

  /** @param node null: all sources @throws node.unknown, log.locked while the mesh runs */
  constructor(mesh: Mesh, node: string | null, options: { readonly secrets: Secrets; readonly logger: Logger }) {
    this.#mesh = mesh
    this.#options = options
    this.#sources = mesh.sources.filter(({ name }) => node === null || name === node)
    if (this.#sources.length === 0) {
      throw new MillraceError('node.unknown', `the mesh has no source ${node}`, { fix: `one of: ${mesh.sources.map(({ name }) => name).join(', ')}` })
    }
    // one that was removed already is not made again
    this.#folder = existsSync(mesh.dataDir) ? new DataFolder(mesh.dataDir) : null
  }

  /** What is there, by source. @throws when one of the servers cannot be asked */
  async list(): Promise<readonly NodeProvisions[]> {
    return await Promise.all(
      this.#sources.map(async (source) => ({
        node: source.name,
        items: (await source.plugin.provisions?.list(this.#configOf(source) as never, this.#contextOf(source))) ?? [],
      })),
    )
  }

  /** Removes it, source by source. After an error it may be called again. @throws source.in_use, source.* */
  async drop(): Promise<void> {
    for (const source of this.#sources) await source.plugin.provisions?.drop(this.#configOf(source) as never, this.#contextOf(source))
  }

  #configOf(source: SourceNode): unknown {
    return source.settings.resolve(this.#options.secrets, this.#mesh.dir)
  }

  #contextOf({ name }: SourceNode): PluginContext {
    const { dataDir, name: mesh } = this.#mesh
    return { mesh, node: name, dataDir: nodeDirOf(dataDir, name), logger: this.#options.logger.child({ node: name }), metric: () => {} }
  }

  [Symbol.dispose](): void {
    this.#folder?.[Symbol.dispose]()
  }
}
