/** Manifests and manifest lists of format version 2. Source: Iceberg table spec, "Manifests" and "Snapshots" (iceberg.apache.org/spec). */
import { readAvroContainer, writeAvroContainer } from './avro-container.ts'
import { stringifyLosslessJson } from './lossless-json.ts'
import type { IcebergSchema } from './table-metadata.ts'

export const EXISTING = 0
export const ADDED = 1
export const DELETED = 2
/** `content` of a data file. */
export const DATA = 0
export const EQUALITY_DELETES = 2

interface IntEntry<V> {
  readonly key: number
  readonly value: V
}

/** `data_file` with the spec's own field names. Bounds are in Iceberg's single-value binary form. */
export interface DataFile {
  readonly content: number
  readonly file_path: string
  readonly file_format: string
  readonly partition: object
  readonly record_count: bigint
  readonly file_size_in_bytes: bigint
  readonly column_sizes: readonly IntEntry<bigint>[] | null
  readonly value_counts: readonly IntEntry<bigint>[] | null
  readonly null_value_counts: readonly IntEntry<bigint>[] | null
  readonly nan_value_counts: readonly IntEntry<bigint>[] | null
  readonly lower_bounds: readonly IntEntry<Buffer>[] | null
  readonly upper_bounds: readonly IntEntry<Buffer>[] | null
  readonly key_metadata: Buffer | null
  readonly split_offsets: readonly bigint[] | null
  readonly equality_ids: readonly number[] | null
  readonly sort_order_id: number | null
  readonly referenced_data_file: string | null
}

export interface ManifestEntry {
  readonly status: number
  readonly snapshot_id: bigint | null
  /** Null for an added file: it takes the sequence number of its manifest. */
  readonly sequence_number: bigint | null
  readonly file_sequence_number: bigint | null
  readonly data_file: DataFile
}

export interface ManifestFile {
  readonly manifest_path: string
  readonly manifest_length: bigint
  readonly partition_spec_id: number
  /** 0 data, 1 deletes. */
  readonly content: number
  readonly sequence_number: bigint
  readonly min_sequence_number: bigint
  readonly added_snapshot_id: bigint
  readonly added_files_count: number
  readonly existing_files_count: number
  readonly deleted_files_count: number
  readonly added_rows_count: bigint
  readonly existing_rows_count: bigint
  readonly deleted_rows_count: bigint
  readonly partitions: readonly object[] | null
  readonly key_metadata: Buffer | null
}

const required = (id: number, name: string, type: unknown) => ({ name, type, 'field-id': id })
const optional = (id: number, name: string, type: unknown) => ({ name, type: ['null', type], default: null, 'field-id': id })
const intMap = (key: number, value: number, type: string) => ({
  type: 'array',
  logicalType: 'map',
  items: { type: 'record', name: `k${key}_v${value}`, fields: [required(key, 'key', 'int'), required(value, 'value', type)] },
})

const MANIFEST_ENTRY = {
  type: 'record',
  name: 'manifest_entry',
  fields: [
    required(0, 'status', 'int'),
    optional(1, 'snapshot_id', 'long'),
    optional(3, 'sequence_number', 'long'),
    optional(4, 'file_sequence_number', 'long'),
    required(2, 'data_file', {
      type: 'record',
      name: 'r2',
      fields: [
        required(134, 'content', 'int'),
        required(100, 'file_path', 'string'),
        required(101, 'file_format', 'string'),
        required(102, 'partition', { type: 'record', name: 'r102', fields: [] }),
        required(103, 'record_count', 'long'),
        required(104, 'file_size_in_bytes', 'long'),
        optional(108, 'column_sizes', intMap(117, 118, 'long')),
        optional(109, 'value_counts', intMap(119, 120, 'long')),
        optional(110, 'null_value_counts', intMap(121, 122, 'long')),
        optional(137, 'nan_value_counts', intMap(138, 139, 'long')),
        optional(125, 'lower_bounds', intMap(126, 127, 'bytes')),
        optional(128, 'upper_bounds', intMap(129, 130, 'bytes')),
        optional(131, 'key_metadata', 'bytes'),
        optional(132, 'split_offsets', { type: 'array', items: 'long', 'element-id': 133 }),
        optional(135, 'equality_ids', { type: 'array', items: 'int', 'element-id': 136 }),
        optional(140, 'sort_order_id', 'int'),
        optional(143, 'referenced_data_file', 'string'),
      ],
    }),
  ],
}

const MANIFEST_FILE = {
  type: 'record',
  name: 'manifest_file',
  fields: [
    required(500, 'manifest_path', 'string'),
    required(501, 'manifest_length', 'long'),
    required(502, 'partition_spec_id', 'int'),
    required(517, 'content', 'int'),
    required(515, 'sequence_number', 'long'),
    required(516, 'min_sequence_number', 'long'),
    required(503, 'added_snapshot_id', 'long'),
    required(504, 'added_files_count', 'int'),
    required(505, 'existing_files_count', 'int'),
    required(506, 'deleted_files_count', 'int'),
    required(512, 'added_rows_count', 'long'),
    required(513, 'existing_rows_count', 'long'),
    required(514, 'deleted_rows_count', 'long'),
    optional(507, 'partitions', {
      type: 'array',
      items: {
        type: 'record',
        name: 'r508',
        fields: [
          required(509, 'contains_null', 'boolean'),
          optional(518, 'contains_nan', 'boolean'),
          optional(510, 'lower_bound', 'bytes'),
          optional(511, 'upper_bound', 'bytes'),
        ],
      },
      'element-id': 508,
    }),
    optional(519, 'key_metadata', 'bytes'),
  ],
}

/** A manifest of an unpartitioned table; `content` as in {@link ManifestFile}. */
export function writeManifest(entries: readonly ManifestEntry[], content: 0 | 1, schema: IcebergSchema, specId: number): Buffer {
  return writeAvroContainer(MANIFEST_ENTRY, entries, {
    schema: stringifyLosslessJson(schema),
    'schema-id': String(schema['schema-id']),
    'partition-spec': '[]',
    'partition-spec-id': String(specId),
    'format-version': '2',
    content: content === 0 ? 'data' : 'deletes',
  })
}

/** What the manifest list says of a manifest, from its entries. */
export function describeManifest(
  entries: readonly ManifestEntry[],
  facts: {
    readonly path: string
    readonly sizeBytes: number
    readonly specId: number
    readonly content: 0 | 1
    readonly sequenceNumber: bigint
    readonly snapshotId: bigint
  },
): ManifestFile {
  const counts = [0, 0, 0]
  const rows = [0n, 0n, 0n]
  let least = facts.sequenceNumber
  for (const { status, sequence_number: sequenceNumber, data_file: file } of entries) {
    counts[status]!++
    rows[status]! += file.record_count
    if (status !== DELETED && sequenceNumber !== null && sequenceNumber < least) least = sequenceNumber
  }
  return {
    manifest_path: facts.path,
    manifest_length: BigInt(facts.sizeBytes),
    partition_spec_id: facts.specId,
    content: facts.content,
    sequence_number: facts.sequenceNumber,
    min_sequence_number: least,
    added_snapshot_id: facts.snapshotId,
    added_files_count: counts[ADDED]!,
    existing_files_count: counts[EXISTING]!,
    deleted_files_count: counts[DELETED]!,
    added_rows_count: rows[ADDED]!,
    existing_rows_count: rows[EXISTING]!,
    deleted_rows_count: rows[DELETED]!,
    partitions: null,
    key_metadata: null,
  }
}

export function writeManifestList(manifests: readonly ManifestFile[], snapshotId: bigint, parentId: bigint | null, sequenceNumber: bigint): Buffer {
  return writeAvroContainer(MANIFEST_FILE, manifests, {
    'snapshot-id': String(snapshotId),
    'parent-snapshot-id': String(parentId ?? 'null'),
    'sequence-number': String(sequenceNumber),
    'format-version': '2',
  })
}

export function readManifestList(bytes: Buffer, name: string): readonly ManifestFile[] {
  return (readAvroContainer(bytes, name).records as ManifestFile[]).map((file) => ({
    ...file,
    partitions: file.partitions ?? null,
    key_metadata: file.key_metadata ?? null,
  }))
}

/** The entries with their inherited sequence numbers and snapshot ids filled in. Format v1 entries have sequence number 0. */
export function readManifest(bytes: Buffer, manifest: ManifestFile): readonly ManifestEntry[] {
  return (readAvroContainer(bytes, manifest.manifest_path).records as ManifestEntry[]).map((entry) => ({
    status: entry.status,
    snapshot_id: entry.snapshot_id ?? manifest.added_snapshot_id,
    sequence_number: entry.sequence_number ?? (entry.status === ADDED ? manifest.sequence_number : 0n),
    file_sequence_number: entry.file_sequence_number ?? (entry.status === ADDED ? manifest.sequence_number : 0n),
    data_file: {
      content: entry.data_file.content ?? DATA,
      file_path: entry.data_file.file_path,
      file_format: entry.data_file.file_format.toUpperCase(),
      partition: entry.data_file.partition,
      record_count: entry.data_file.record_count,
      file_size_in_bytes: entry.data_file.file_size_in_bytes,
      column_sizes: entry.data_file.column_sizes ?? null,
      value_counts: entry.data_file.value_counts ?? null,
      null_value_counts: entry.data_file.null_value_counts ?? null,
      nan_value_counts: entry.data_file.nan_value_counts ?? null,
      lower_bounds: entry.data_file.lower_bounds ?? null,
      upper_bounds: entry.data_file.upper_bounds ?? null,
      key_metadata: entry.data_file.key_metadata ?? null,
      split_offsets: entry.data_file.split_offsets ?? null,
      equality_ids: entry.data_file.equality_ids ?? null,
      sort_order_id: entry.data_file.sort_order_id ?? null,
      referenced_data_file: entry.data_file.referenced_data_file ?? null,
    },
  }))
}
