import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import type { PluginContext } from 'millrace'
import { sinkContract } from 'millrace/testing'
import plugin from './index.ts'

/** A target of its own for each test. */
sinkContract(
  'plugin-name',
  async (table, topic) => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'rows-'))
    const context = { mesh: 'test', node: 'target', dataDir: folder, metric: () => {} } as unknown as PluginContext
    return {
      open: (readOnly = false) => plugin.open({ folder }, { ...context, readOnly }, { topic, namespace: table.namespace, table: table.name }),
      dispose: async () => rmSync(folder, { recursive: true }),
    }
  },
  { secondWriter: null },
)
