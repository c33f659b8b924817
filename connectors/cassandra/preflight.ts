import { type Finding, type PluginContext, TablePatterns } from '../../core/plugin.ts'
import { type CassandraConfig, foldersOf, isUrl } from './cassandra-config.ts'
import { type CatalogTable, readCatalog } from './catalog.ts'
import type { CdcFiles } from './cdc-files.ts'
import { type ClusterFacts, readFacts } from './cluster-facts.ts'
import { COVER, uncovered } from './coverage.ts'
import { CqlClient } from './cql-client.ts'
import { filesOf } from './files-of.ts'
import { PARTITIONER } from './open-cassandra.ts'

/** With a longer time between syncs changes come late. */
const SLOW_SYNC_MS = 2000

/** Everything that `open` needs, looked at without changing anything; all findings at once. @throws source.unreachable, source.forbidden */
export async function checkCassandra(config: CassandraConfig, _context: PluginContext): Promise<readonly Finding[]> {
  const folders = await Promise.all(filesOf(config).map(folderFinding))
  await using client = await CqlClient.connect(config)
  const facts = await readFacts(client)
  const catalog = await readCatalog(client, new TablePatterns(config.tables))
  const captured = new Set(catalog.filter(({ description }) => description.captured).map(({ description }) => description.keyspace))
  const lost = (await uncovered(client, captured, folders.length)).map(
    ({ keyspace, message }): Finding => ({ level: 'error', subject: `replicas of ${keyspace}`, message, fix: COVER }),
  )
  return [...folders, ...nodeFindings(facts, config), ...lost, ...tableFindings(catalog, config)]
}

async function folderFinding(files: CdcFiles): Promise<Finding> {
  const subject = 'cdcRaw'
  const why = await files.whyNot()
  if (why === null) return { level: 'ok', subject, message: `${files.path} can be read and written` }
  return {
    level: 'error',
    subject,
    message: `${files.path} cannot be read and written: ${why}`,
    fix: 'run on the node itself, as a user who may; cdcRaw is cdc_raw_directory of its cassandra.yaml',
  }
}

function nodeFindings({ version, partitioner, cdcEnabled, cdcRaw, blocksWrites, space, syncMs }: ClusterFacts, config: CassandraConfig): readonly Finding[] {
  const [major = 0] = version.split('.').map(Number)
  const found: Finding[] = []
  const isKnown = major === 4 || major === 5
  found.push({
    level: isKnown ? 'ok' : 'error',
    subject: 'version',
    message: `${version}; 4.0 to 5.0 are supported`,
    ...(isKnown ? {} : { fix: 'use Cassandra 4.0 to 5.0' }),
  })
  if (PARTITIONER.test(partitioner)) found.push({ level: 'ok', subject: 'partitioner', message: partitioner })
  else found.push({ level: 'error', subject: 'partitioner', message: partitioner, fix: 'only Murmur3Partitioner is supported' })
  if (cdcEnabled === true) found.push({ level: 'ok', subject: 'cdc_enabled', message: 'true' })
  else
    found.push({
      level: 'error',
      subject: 'cdc_enabled',
      message: String(cdcEnabled),
      fix: 'set cdc_enabled: true in cassandra.yaml of every node, and restart it',
    })
  if (cdcRaw !== null && !foldersOf(config).some(isUrl) && !foldersOf(config).includes(cdcRaw)) {
    found.push({
      level: 'warning',
      subject: 'cdc_raw_directory',
      message: `the node that answers has ${cdcRaw}, and cdcRaw is ${foldersOf(config).join(', ')}`,
      fix: 'set cdcRaw to the folder of the node on this machine, and name that node first in contactPoints',
    })
  }
  if (!blocksWrites) {
    found.push({
      level: 'warning',
      subject: 'cdc_block_writes',
      message: 'false: when the space for CDC is full, segments are dropped that were not captured, and the tables must be read anew',
      fix: 'set cdc_block_writes: true, or watch millrace_cassandra_cdc_space_used',
    })
  }
  found.push(
    space === null
      ? {
          level: 'warning',
          subject: 'cdc_total_space',
          message: 'the node does not say it: there will be no alarm before it is full',
          fix: `set ${version.startsWith('4.0') ? 'cdc_total_space_in_mb' : 'cdc_total_space'} in cassandra.yaml`,
        }
      : { level: 'ok', subject: 'cdc_total_space', message: `${Math.round(space / 1024 ** 2)} MiB; when it is full, writes to tables with cdc are refused` },
  )
  found.push(
    syncMs > SLOW_SYNC_MS
      ? {
          level: 'warning',
          subject: 'commitlog_sync_period',
          message: `${syncMs} ms: changes are seen that late`,
          fix: `set ${version.startsWith('4.0') ? 'commitlog_sync_period_in_ms: 1000' : 'commitlog_sync_period: 1000ms'} in cassandra.yaml`,
        }
      : { level: 'ok', subject: 'commitlog_sync_period', message: `${syncMs} ms` },
  )
  return found
}

function tableFindings(catalog: readonly CatalogTable[], config: CassandraConfig): readonly Finding[] {
  const wanted = catalog.filter((table) => table.wanted)
  if (wanted.length === 0) return [{ level: 'warning', subject: 'tables', message: `no table matches ${config.tables.join(', ')} yet` }]
  return wanted.flatMap(oneTable)
}

function oneTable({ description: { keyspace, name, columns }, cdc, hasCounters, unreadable }: CatalogTable): readonly Finding[] {
  const id = `${keyspace}.${name}`
  if (hasCounters) {
    return [
      {
        level: 'warning',
        subject: `counters of ${id}`,
        message: 'it is not captured: the log has what a replica added up, not the value',
        fix: `leave out '!${id}' in tables`,
      },
    ]
  }
  const found: Finding[] = []
  if (!cdc)
    found.push({ level: 'warning', subject: `cdc of ${id}`, message: 'it is not captured: its changes are not kept', fix: `ALTER TABLE ${id} WITH cdc = true` })
  else found.push({ level: 'ok', subject: `cdc of ${id}`, message: 'true' })
  if (unreadable !== null) {
    found.push({ level: 'error', subject: `types of ${id}`, message: unreadable.message, ...(unreadable.fix === undefined ? {} : { fix: unreadable.fix }) })
  }
  if (columns.some(({ kind, dropped }) => kind === 'static' && !dropped)) {
    found.push({ level: 'ok', subject: `static columns of ${id}`, message: 'each row has them; those of a partition without rows are not captured' })
  }
  return found
}
