import { definePlugin } from '../../core/plugin.ts'
import { type CassandraConfig, cassandraConfig } from './cassandra-config.ts'
import { openCassandraReader } from './cassandra-reader.ts'
import { openCassandra } from './open-cassandra.ts'
import { checkCassandra } from './preflight.ts'

export default definePlugin<CassandraConfig>({
  kind: 'source',
  name: 'cassandra',
  summary: "Captures writes to Cassandra 4.0 to 5.0 from a node's CDC commit log.",
  config: cassandraConfig,
  sourceFields: [
    { name: 'file', type: 'string' },
    { name: 'pos', type: 'long' },
    { name: 'write_us', type: 'long' },
  ],
  check: checkCassandra,
  open: openCassandra,
  openReader: openCassandraReader,
})
