/**
 * The same segments through our reader and through Cassandra's own CommitLogReader: equal changes at equal positions, of every table that there is.
 * `MILLRACE_RECORD=1` keeps what was recorded as the golden files of test/golden/cassandra.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { cassandraSkipReason, type Release } from '../services/cassandra-jvm.ts'
import { recordCommitLog } from '../services/commit-log/commit-log.ts'
import { decodedLines, describeTables } from '../services/commit-log/expected.ts'
import { writeGolden } from '../services/commit-log/golden.ts'
import { labStatements } from '../services/commit-log/statements.ts'

const GOLDEN = path.resolve(import.meta.dirname, '../golden/cassandra')
const compression = (name: string) => `commitlog_compression: [{class_name: ${name}}]`
const V8 = 'storage_compatibility_mode: NONE'

const CASES: readonly { name: string; release: Release; yaml: readonly string[]; kept: boolean }[] = [
  { name: '4.0.17-v7', release: '4.0', yaml: [], kept: false },
  { name: '4.1.8-v7', release: '4.1', yaml: [], kept: true },
  { name: '4.1.8-v7-deflate', release: '4.1', yaml: [compression('DeflateCompressor')], kept: false },
  { name: '5.0.4-v7-snappy', release: '5.0', yaml: [compression('SnappyCompressor')], kept: true },
  { name: '5.0.4-v8', release: '5.0', yaml: [V8], kept: false },
  { name: '5.0.4-v8-lz4', release: '5.0', yaml: [V8, compression('LZ4Compressor')], kept: true },
  { name: '5.0.4-v8-zstd', release: '5.0', yaml: [V8, compression('ZstdCompressor')], kept: false },
]

describe.skipIf(cassandraSkipReason() !== null)('against the reader of Cassandra', () => {
  test.each(CASES)('$name', { timeout: 600_000 }, async ({ name, release, yaml, kept }) => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-commit-log-'))
    try {
      const recording = await recordCommitLog({ dir, release, yaml, statements: labStatements(release), reread: true })
      const tables = describeTables(recording.schema, () => true)
      expect(recording.segments.length).toBeGreaterThan(0)
      let updates = 0
      for (const segment of recording.segments) {
        const { lines, unread } = await decodedLines(segment, tables)
        expect(unread).toEqual([])
        expect(lines).toEqual(segment.mutations.map((line) => JSON.parse(line)))
        updates += lines.length
      }
      expect(updates).toBeGreaterThanOrEqual(60)
      if (kept && process.env.MILLRACE_RECORD === '1') writeGolden(path.join(GOLDEN, `${name}.json.gz`), recording, 'lab')
    } finally {
      rmSync(dir, { recursive: true, force: true })
    }
  })
})
