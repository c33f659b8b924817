import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { readAvroContainer } from '../../../../connectors/iceberg/avro-container.ts'
import {
  describeManifest,
  type ManifestEntry,
  readManifest,
  readManifestList,
  writeManifest,
  writeManifestList,
} from '../../../../connectors/iceberg/manifest.ts'
import type { IcebergSchema } from '../../../../connectors/iceberg/table-metadata.ts'

const schema: IcebergSchema = { type: 'struct', 'schema-id': 3, fields: [{ id: 1, name: 'id', required: true, type: 'long' }] }
const entry = (path: string, status: number, sequenceNumber: bigint | null): ManifestEntry => ({
  status,
  snapshot_id: status === 1 ? null : 5n,
  sequence_number: sequenceNumber,
  file_sequence_number: sequenceNumber,
  data_file: {
    content: 2,
    file_path: path,
    file_format: 'PARQUET',
    partition: {},
    record_count: 7n,
    file_size_in_bytes: 2n ** 62n + 1n,
    column_sizes: null,
    value_counts: [{ key: 1, value: 7n }],
    null_value_counts: null,
    nan_value_counts: null,
    lower_bounds: [{ key: 1, value: Buffer.from([1, 2]) }],
    upper_bounds: null,
    key_metadata: null,
    split_offsets: [4n],
    equality_ids: [1],
    sort_order_id: null,
    referenced_data_file: null,
  },
})

test('manifests and lists come back with 63-bit numbers, inherited sequence numbers and field ids in the header', () => {
  const entries = [entry('a', 1, null), entry('b', 0, 2n), entry('c', 2, 1n)]
  const bytes = writeManifest(entries, 1, schema, 0)
  const facts = describeManifest(entries, { path: 'm', sizeBytes: bytes.length, specId: 0, content: 1, sequenceNumber: 9n, snapshotId: 2n ** 62n + 3n })
  expect(facts).toMatchObject({ added_files_count: 1, existing_files_count: 1, deleted_files_count: 1, added_rows_count: 7n, min_sequence_number: 2n })
  const [list] = readManifestList(writeManifestList([facts], 2n ** 62n + 3n, null, 9n), 'list')
  expect(list).toEqual(facts)
  const back = readManifest(bytes, list!)
  expect(back.map((one) => [one.data_file.file_path, one.sequence_number, one.snapshot_id])).toEqual([
    ['a', 9n, 2n ** 62n + 3n],
    ['b', 2n, 5n],
    ['c', 1n, 5n],
  ])
  expect(back[1]!.data_file).toEqual(entries[1]!.data_file)
  expect(readAvroContainer(bytes, 'm').metadata.get('avro.schema')).toContain('"field-id":134')
})

test('bytes that are no whole Avro file are refused', () => {
  const bytes = writeManifest([entry('a', 1, null)], 1, schema, 0)
  for (const bad of [randomBytes(50), bytes.subarray(0, bytes.length - 30), Buffer.alloc(0), bytes.subarray(0, 40)]) {
    expect(() => readAvroContainer(bad, 'bad')).toThrow(expect.objectContaining({ code: 'record.malformed' }))
  }
})
