import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { SearchSink } from '../../connectors/search/search-sink.ts'
import { sinkContract } from '../../testing/sink.contract.ts'

const limits = { rows: 5_000, bytes: 8 * 1024 * 1024, ageMs: 250 }

sinkContract(
  'search (SQLite FTS5)',
  async (table, topic) => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-search-'))
    return {
      open: (readOnly = false) => SearchSink.open({ file: path.join(dir, 'search.db'), index: table.name, topic, limits, readOnly }),
      dispose: async () => rmSync(dir, { recursive: true, force: true }),
    }
  },
  { secondWriter: 'conflict', runs: 60 },
)
