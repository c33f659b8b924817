import { definePlugin } from '../../core/plugin.ts'
import { type CockroachdbConfig, cockroachdbConfig } from './cockroachdb-config.ts'
import { cockroachdbProvisions, openCockroachdb, openCockroachdbReader } from './open-cockroachdb.ts'
import { checkCockroachdb } from './preflight.ts'

export default definePlugin<CockroachdbConfig>({
  kind: 'source',
  name: 'cockroachdb',
  summary: 'Captures committed changes of CockroachDB 24.3 and later through changefeeds: over SQL, or a webhook.',
  config: cockroachdbConfig,
  sourceFields: [{ name: 'hlc', type: 'string' }],
  check: checkCockroachdb,
  open: openCockroachdb,
  openReader: openCockroachdbReader,
  provisions: cockroachdbProvisions,
})
