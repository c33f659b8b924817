/**
 * The same segments through our reader and through Cassandra's own CommitLogReader: equal changes at equal positions, of every table that there is.
 * `MILLRACE_RECORD=1` keeps what was recorded as the golden files of test/golden/cassandra.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { recordCommitLog, skipReason } from '../services/commit-log/commit-log.ts'
import { decodedLines, describeTables } from '../services/commit-log/expected.ts'
import { writeGolden } from '../services/commit-log/golden.ts'
import { labStatements } from '../services/commit-log/statements.ts'

const GOLDEN = path.resolve(import.meta.dirname, '../golden/cassandra')
const compression = (name: string) => `commitlog_compression: [{class_name: ${name}}]`
const V8 = 'storage_compatibility_mode: NONE'

const CASES: readonly { name: string; version: string; yaml: readonly string[]; kept: boolean }[] = [
  { name: '4.1.8-v7', version: '4.1.8', yaml: [], kept: true },
  { name: '4.1.8-v7-deflate', version: '4.1.8', yaml: [compression('DeflateCompressor')], kept: false },
  { name: '5.0.4-v7-snappy', version: '5.0.4', yaml: [compression('SnappyCompressor')], kept: true },
  { name: '5.0.4-v8', version: '5.0.4', yaml: [V8], kept: false },
  { name: '5.0.4-v8-lz4', version: '5.0.4', yaml: [V8, compression('LZ4Compressor')], kept: true },
  { name: '5.0.4-v8-zstd', version: '5.0.4', yaml: [V8, compression('ZstdCompressor')], kept: false },
]

describe.skipIf(skipReason() !== null)('against the reader of Cassandra', () => {
  test.each(CASES)('$name', { timeout: 600_000 }, async ({ name, version, yaml, kept }) => {
    const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-commit-log-'))
    try {
      const recording = await recordCommitLog({ dir, version, yaml, statements: labStatements(version), reread: true })
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
