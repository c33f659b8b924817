import { definePlugin } from '../../core/plugin.ts'
import { openPostgres } from './open-postgres.ts'
import { type PostgresConfig, postgresConfig } from './postgres-config.ts'
import { openPostgresReader } from './postgres-reader.ts'
import { checkPostgres } from './preflight.ts'
import { postgresProvisions } from './provisions.ts'

export default definePlugin<PostgresConfig>({
  kind: 'source',
  name: 'postgres',
  summary: 'Captures committed changes of Postgres 14 to 18 from its WAL (logical replication, pgoutput).',
  config: postgresConfig,
  sourceFields: [
    { name: 'txId', type: 'long' },
    { name: 'lsn', type: 'long' },
  ],
  check: checkPostgres,
  open: openPostgres,
  openReader: openPostgresReader,
  provisions: postgresProvisions,
})
