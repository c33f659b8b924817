/** The files of a sink's tables, wherever they lie: by the scheme of each location. What a scheme needs is loaded when it is first met. */
import { MillraceError } from '../../core/plugin.ts'
import type { FileStore } from './file-store.ts'
import { localStore } from './local-store.ts'

export class WarehouseFiles implements FileStore {
  async write(location: string, bytes: Uint8Array): Promise<void> {
    await (await this.#storeOf(location)).write(location, bytes)
  }

  async syncFolder(location: string): Promise<void> {
    await (await this.#storeOf(location)).syncFolder(location)
  }

  async replace(location: string, text: string): Promise<void> {
    await (await this.#storeOf(location)).replace(location, text)
  }

  async read(location: string) {
    return await (await this.#storeOf(location)).read(location)
  }

  async open(location: string) {
    return await (await this.#storeOf(location)).open(location)
  }

  async remove(locations: Iterable<string>): Promise<void> {
    const all = [...locations]
    if (all[0] !== undefined) await (await this.#storeOf(all[0])).remove(all)
  }

  async list(location: string) {
    return await (await this.#storeOf(location)).list(location)
  }

  /** @throws config.unsupported */
  async #storeOf(location: string): Promise<FileStore> {
    const scheme = /^([a-z0-9]+):/.exec(location)?.[1]
    if (scheme === undefined || scheme === 'file') return localStore
    throw new MillraceError('config.unsupported', `the Iceberg sink writes local folders only, not ${scheme}: locations`, {
      fix: 'set warehouse to a folder, and let the REST catalog keep its tables under file://',
    })
  }
}
