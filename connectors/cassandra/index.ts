import { definePlugin } from '../../core/plugin.ts'
import { serveFolder } from './agent-server.ts'
import { type CassandraConfig, cassandraConfig } from './cassandra-config.ts'

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
  // the agent that serves a folder needs none of it
  check: async (config, context) => (await import('./preflight.ts')).checkCassandra(config, context),
  open: async (config, context, resume) => (await import('./open-cassandra.ts')).openCassandra(config, context, resume),
  openReader: async (config, context) => (await import('./cassandra-reader.ts')).openCassandraReader(config, context),
  serve: serveFolder,
})
