import { expect, test } from 'vitest'
import * as cassandra from '../../../connectors/cassandra/cassandra-offset.ts'
import * as cockroachdb from '../../../connectors/cockroachdb/cockroachdb-source.ts'
import * as files from '../../../connectors/files/files-source.ts'
import * as mysql from '../../../connectors/mysql/mysql-offset.ts'
import * as postgres from '../../../connectors/postgres/slot.ts'
import type { SourceOffset } from '../../../core/plugin.ts'

const SOURCES: Readonly<Record<string, { readonly readOffset: (offset: SourceOffset) => unknown; readonly offset: SourceOffset }>> = {
  cassandra: { ...cassandra, offset: { logs: {}, commit: '1', through: 0 } },
  cockroachdb: { ...cockroachdb, offset: { wall: '1', cluster: null } },
  files: { ...files, offset: { files: [], forgotten: 0, columns: {}, next: null } },
  mysql: { ...mysql, offset: { flavor: 'mysql', gtids: '' } },
  postgres: { ...postgres, offset: { lsn: '0/1', system: '1', timeline: 1, publication: 1 } },
}

test.each(Object.keys(SOURCES))('%s reads its own offsets, and says of those of others that it has another history', (source) => {
  const { readOffset, offset } = SOURCES[source]!
  expect(() => readOffset(offset)).not.toThrow()
  for (const other of Object.keys(SOURCES)) {
    if (other === source) continue
    const lost = expect.objectContaining({ code: 'source.identity_changed', fix: expect.stringContaining('--resnapshot') })
    expect(() => readOffset(SOURCES[other]!.offset), other).toThrow(lost)
  }
})
