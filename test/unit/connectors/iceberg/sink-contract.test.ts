import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pino from 'pino'
import iceberg from '../../../../connectors/iceberg/index.ts'
import { settings } from '../../../../connectors/iceberg/settings.ts'
import { sinkContract } from '../../../../testing/sink.contract.ts'
import { runs } from '../../../fixed-seed.ts'

sinkContract(
  'iceberg in a folder with a SQL catalog',
  async (table, topic) => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'millrace-iceberg-'))
    const context = { mesh: 'test', node: 'lake', dataDir: folder, logger: pino({ level: 'silent' }), metric: () => {} }
    return {
      open: (readOnly = false) =>
        iceberg.open(
          settings.parse({ warehouse: folder, compactAfterDeleteFiles: 4 }),
          { ...context, readOnly },
          { topic, namespace: table.namespace, table: table.name },
        ),
      dispose: async () => rmSync(folder, { recursive: true, force: true }),
    }
  },
  { secondWriter: 'conflict', compacts: true, runs: runs(40) },
)
