import { randomUUID } from 'node:crypto'
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { asMillraceError, definePlugin, type Finding, MillraceError } from '../../core/plugin.ts'
import type { Catalog } from './catalog.ts'
import type { FileStore } from './file-store.ts'
import { IcebergSink } from './iceberg-sink.ts'
import { localPath } from './local-store.ts'
import { RestCatalog } from './rest-catalog.ts'
import { type IcebergSettings, settings } from './settings.ts'
import { SqlCatalog } from './sql-catalog.ts'
import { WarehouseFiles } from './warehouse-files.ts'

function openCatalog(config: IcebergSettings, readOnly: boolean): Catalog {
  const files = new WarehouseFiles(config.s3)
  if (config.catalog.kind === 'rest') return new RestCatalog(config.catalog, files)
  if (config.warehouse!.startsWith('s3:')) {
    const { path: db, name } = config.catalog
    return new SqlCatalog({ path: path.resolve(db!), name, warehouse: config.warehouse!.replace(/\/+$/, ''), readOnly }, files)
  }
  const folder = localPath(path.isAbsolute(config.warehouse!) || config.warehouse!.startsWith('file:') ? config.warehouse! : path.resolve(config.warehouse!))
  if (!readOnly) mkdirSync(folder, { recursive: true })
  const db = path.resolve(config.catalog.path ?? path.join(folder, 'catalog.db'))
  return new SqlCatalog({ path: db, name: config.catalog.name, warehouse: `file://${folder}`, readOnly }, files)
}

/** Writes, reads and deletes a file. */
async function probe(files: FileStore, location: string): Promise<void> {
  const file = `${location}/millrace-probe-${randomUUID()}`
  const text = 'written by millrace check'
  await files.write(file, Buffer.from(text))
  const back = (await files.read(file)).toString()
  const [failure] = await files.remove([file])
  if (failure !== undefined) throw failure
  if (back !== text) throw new MillraceError('sink.forbidden', `${file} came back changed`, { fix: 'look for a proxy between Millrace and the store' })
}

export default definePlugin<IcebergSettings>({
  kind: 'sink',
  compacts: true,
  name: 'iceberg',
  summary: 'Keeps an Iceberg table per stream equal to its source table, in one snapshot per batch.',
  config: settings,
  async check(config): Promise<readonly Finding[]> {
    const subject = config.catalog.kind === 'rest' ? `REST catalog ${config.catalog.uri}` : `warehouse ${config.warehouse}`
    try {
      await using catalog = openCatalog(config, false)
      const location = await catalog.newTableLocation(config.namespace?.split('.') ?? null)
      if (location === null) return [{ level: 'ok', subject, message: 'reachable; its store is tried once a namespace exists' }]
      await probe(catalog.files, location)
      return [{ level: 'ok', subject, message: 'reachable, and its store takes, gives and deletes files' }]
    } catch (error) {
      const { message, fix } = asMillraceError(error)
      return [{ level: 'error', subject, message, ...(fix === undefined ? {} : { fix }) }]
    }
  },
  async open(config, context, stream) {
    try {
      return new IcebergSink(config, openCatalog(config, context.readOnly === true), context, stream)
    } catch (error) {
      if (error instanceof MillraceError) throw error
      const code = (error as NodeJS.ErrnoException).code ?? ''
      const message = `cannot open the warehouse: ${(error as Error).message}`
      // a mount that is away leaves a file or an empty folder behind: it comes back
      if (!['EACCES', 'EPERM', 'EROFS'].includes(code)) throw new MillraceError('sink.unreachable', message, { cause: error })
      throw new MillraceError('sink.forbidden', message, { cause: error, fix: 'set warehouse to a folder that can be written' })
    }
  },
})
