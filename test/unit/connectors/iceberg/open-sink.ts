import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import type { IcebergSink } from '../../../../connectors/iceberg/iceberg-sink.ts'
import iceberg from '../../../../connectors/iceberg/index.ts'
import { settings } from '../../../../connectors/iceberg/settings.ts'
import type { SinkConnector, Tuple } from '../../../../core/plugin.ts'
import { TOPIC } from './sink-history.ts'

export interface Warehouse extends Disposable {
  readonly folder: string
  /** A further sink on the same table, as another process would open it. */
  open(more?: object, readOnly?: boolean): Promise<IcebergSink>
}

export function warehouse(): Warehouse {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'millrace-iceberg-'))
  const context = { mesh: 'test', node: 'lake', dataDir: folder, logger: pino({ level: 'silent' }), metric: () => {} }
  return {
    folder,
    async open(more = {}, readOnly = false) {
      const config = settings.parse({ warehouse: folder, ...more })
      return (await iceberg.open(config, { ...context, readOnly }, { topic: TOPIC, namespace: 'public', table: 'orders' })) as IcebergSink
    },
    [Symbol.dispose]: () => rmSync(folder, { recursive: true, force: true }),
  }
}

export const never = new AbortController().signal

export async function allRows(sink: SinkConnector): Promise<Tuple[]> {
  const rows: Tuple[] = []
  for await (const part of sink.rows(() => {}, never)) rows.push(...part)
  return rows
}
