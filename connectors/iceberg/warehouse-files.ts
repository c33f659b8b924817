/** The files of a sink's tables, wherever they lie: by the scheme of each location. What object stores need is loaded when one is first met. */
import { MillraceError } from '../../core/plugin.ts'
import type { FileStore, ListedFile, RandomAccessFile } from './file-store.ts'
import { localStore } from './local-store.ts'
import { type S3Access, type S3Settings, type StorageConfig, s3Access } from './s3-access.ts'

/** Vended credentials are asked for anew so long before they end. */
const RENEW_BEFORE_MS = 120_000

export class WarehouseFiles implements FileStore {
  readonly #settings: S3Settings
  #vended: readonly StorageConfig[] = []
  #renew: (() => Promise<unknown>) | null = null
  #renewing: Promise<unknown> | null = null
  #s3: Promise<FileStore> | null = null

  constructor(settings: S3Settings = {}) {
    this.#settings = settings
  }

  /** Whether a catalog should vend credentials with its tables. */
  get wantsCredentials(): boolean {
    return this.#settings.accessKeyId === undefined
  }

  /** Takes what a catalog says of a table's storage. `renew` makes the catalog say it again. */
  vend(configs: readonly StorageConfig[], renew: () => Promise<unknown>): void {
    this.#vended = configs
    this.#renew = renew
  }

  async write(location: string, bytes: Uint8Array): Promise<void> {
    await (await this.#storeOf(location)).write(location, bytes)
  }

  async syncFolder(location: string): Promise<void> {
    await (await this.#storeOf(location)).syncFolder(location)
  }

  async replace(location: string, text: string): Promise<void> {
    await (await this.#storeOf(location)).replace(location, text)
  }

  async read(location: string): Promise<Buffer> {
    return await (await this.#storeOf(location)).read(location)
  }

  async open(location: string): Promise<RandomAccessFile> {
    return await (await this.#storeOf(location)).open(location)
  }

  async remove(locations: Iterable<string>): Promise<readonly MillraceError[]> {
    const all = [...locations]
    return all[0] === undefined ? [] : await (await this.#storeOf(all[0])).remove(all)
  }

  async list(location: string): Promise<readonly ListedFile[]> {
    return await (await this.#storeOf(location)).list(location)
  }

  /** @throws config.unsupported */
  async #storeOf(location: string): Promise<FileStore> {
    const scheme = /^([a-z0-9]+):/.exec(location)?.[1]
    if (scheme === undefined || scheme === 'file') return localStore
    if (/^s3[an]?$/.test(scheme)) {
      this.#s3 ??= import('./s3-store.ts').then(({ S3Store }) => new S3Store((at, renew) => this.#accessTo(at, renew)))
      return await this.#s3
    }
    throw new MillraceError('config.unsupported', `the Iceberg sink writes local folders and S3 stores, not ${scheme}: locations`, {
      fix: 'use a catalog that keeps its tables under s3:// or file://',
    })
  }

  async #accessTo(location: string, renew: boolean): Promise<S3Access> {
    const access = s3Access(location, this.#settings, this.#vended)
    const ends = access.endsAt !== null && access.endsAt - RENEW_BEFORE_MS < Date.now()
    if (!(renew || ends) || this.#renew === null || !this.wantsCredentials) return access
    this.#renewing ??= this.#renew().finally(() => {
      this.#renewing = null
    })
    await this.#renewing
    return s3Access(location, this.#settings, this.#vended)
  }
}
