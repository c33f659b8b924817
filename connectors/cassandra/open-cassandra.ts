import { MillraceError, type PluginContext, type SourceConnector, type SourceOffset, TablePatterns } from '../../core/plugin.ts'
import { CapturedTables } from './captured-tables.ts'
import type { CassandraConfig } from './cassandra-config.ts'
import { type CassandraOffset, isBehind, type LogPlace, readOffset, writeOffset } from './cassandra-offset.ts'
import { CassandraSource } from './cassandra-source.ts'
import { CdcDirectory } from './cdc-directory.ts'
import { CdcTail, historyLost } from './cdc-tail.ts'
import { type ClusterFacts, readFacts } from './cluster-facts.ts'
import { COVER, uncovered } from './coverage.ts'
import { CqlClient } from './cql-client.ts'
import { filesOf } from './files-of.ts'
import { KnownRows } from './known-rows.ts'
import { MutationDecoder } from './mutation-decoder.ts'

export const PARTITIONER = /(^|\.)Murmur3Partitioner$/

/** Opens the logs at an offset, or at their ends. */
export async function openCassandra(config: CassandraConfig, context: PluginContext, resume: SourceOffset | null): Promise<SourceConnector> {
  const directories = filesOf(config).map((files) => new CdcDirectory(files))
  const patterns = new TablePatterns(config.tables)
  for (const directory of directories) await directory.list()
  const client = await CqlClient.connect(config)
  let known: KnownRows | null = null
  try {
    const facts = await readFacts(client)
    refuseUnprepared(facts)
    known = KnownRows.open(context, resume === null)
    const { start, from } = resume === null ? await begin(directories, known) : await resumeAt(directories, known, readOffset(resume), facts, context)
    const tables = new CapturedTables(client, patterns, mappingOf(config), known)
    await tables.refresh()
    const [lost] = await uncovered(client, new Set(tables.list().map(({ namespace }) => namespace)), directories.length)
    if (lost !== undefined) throw new MillraceError('source.unprepared', lost.message, { fix: COVER })
    const decoder = new MutationDecoder(tables.descriptions())
    tables.onChange = (all) => decoder.describe(all)
    const logs = directories.map((directory) => {
      const { segment, position } = from.logs[directory.path]!
      return { directory, tail: new CdcTail(directory, segment, position, context.node) }
    })
    return new CassandraSource({
      ...{ config, context, client, patterns, logs, tables, known, decoder, start, from },
      syncMs: 2 * facts.syncMs + 100,
      space: facts.space,
    })
  } catch (error) {
    known?.[Symbol.dispose]()
    await client[Symbol.asyncDispose]()
    throw error
  }
}

export function mappingOf({ unrepresentable, rows }: CassandraConfig) {
  return { unrepresentable, partial: rows === 'written' } as const
}

function refuseUnprepared({ cdcEnabled, partitioner }: ClusterFacts): void {
  if (cdcEnabled === false) {
    throw new MillraceError('source.unprepared', 'the node has cdc_enabled: false', {
      fix: 'set cdc_enabled: true in cassandra.yaml of every node, and restart it',
    })
  }
  if (!PARTITIONER.test(partitioner)) {
    throw new MillraceError('source.unprepared', `the cluster has ${partitioner}`, { fix: 'only Murmur3Partitioner is supported' })
  }
}

/** What is in the logs already is read as rows. */
async function begin(directories: readonly CdcDirectory[], known: KnownRows): Promise<{ start: CassandraOffset; from: CassandraOffset }> {
  const logs: Record<string, LogPlace> = {}
  for (const directory of directories) {
    const segments = await directory.list()
    const last = segments.findLast(({ hasIndex }) => hasIndex)
    const index = last === undefined ? null : await directory.indexAt(last, 0)
    // without an index nothing is in any: the newest is made before the one that is written is full
    logs[directory.path] = { segment: last?.id ?? segments[0]?.id ?? 0, position: index?.until ?? 0 }
  }
  const start: CassandraOffset = { logs, commit: BigInt(Date.now()) * 1000n, through: 0 }
  known.flush(0n, writeOffset(start))
  return { start, from: start }
}

/** @throws source.history_lost when what follows is not there */
async function resumeAt(
  directories: readonly CdcDirectory[],
  known: KnownRows,
  start: CassandraOffset,
  { blocksWrites }: ClusterFacts,
  { node, logger }: PluginContext,
): Promise<{ start: CassandraOffset; from: CassandraOffset }> {
  const folders = directories.map(({ path }) => path)
  const captured = Object.keys(start.logs)
  if (folders.length !== captured.length || folders.some((folder) => !captured.includes(folder))) {
    throw historyLost(`the folders are ${folders.join(', ')}, and ${captured.join(', ')} were captured`, node)
  }
  const stored = known.offset
  const from = stored === null ? start : readOffset(stored)
  if (isBehind(start, from)) throw historyLost('what is known of rows is newer than the log of Millrace, which was put back or has lost its end', node)
  for (const directory of directories) {
    const place = from.logs[directory.path]!
    const segment = (await directory.list()).find(({ id }) => id === place.segment)
    if (segment === undefined) {
      if (place.position > 0 || !blocksWrites) throw historyLost(`segment ${place.segment} is gone from ${directory.path}`, node)
      // a node takes segments away by itself that have nothing of tables with cdc
      if (place.segment > 0) logger.warn({ ...place }, 'the segment in which the stream begins is gone: nothing of captured tables was in it')
      continue
    }
    const until = (await directory.indexAt(segment, place.position))?.until ?? 0
    if (until < place.position) throw historyLost(`segment ${place.segment} ends at ${until}, before ${place.position}, which was captured`, node)
  }
  return { start, from }
}
