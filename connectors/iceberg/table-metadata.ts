/** Table metadata of format version 2 with the spec's own names, and the updates that a commit makes to it. Source: Iceberg table spec, "Table Metadata". */
import { randomUUID } from 'node:crypto'

/** A whole number as lossless JSON gives it. */
export type WholeNumber = number | bigint

export type IcebergType =
  | string
  | { readonly type: 'struct'; readonly fields: readonly IcebergField[] }
  | { readonly type: 'list'; readonly 'element-id': number; readonly element: IcebergType; readonly 'element-required': boolean }
  | {
      readonly type: 'map'
      readonly 'key-id': number
      readonly key: IcebergType
      readonly 'value-id': number
      readonly value: IcebergType
      readonly 'value-required': boolean
    }

export interface IcebergField {
  readonly id: number
  readonly name: string
  readonly required: boolean
  readonly type: IcebergType
  readonly doc?: string
}

export interface IcebergSchema {
  readonly type: 'struct'
  readonly 'schema-id': number
  readonly 'identifier-field-ids'?: readonly number[]
  readonly fields: readonly IcebergField[]
}

export interface Snapshot {
  readonly 'snapshot-id': WholeNumber
  readonly 'parent-snapshot-id'?: WholeNumber
  readonly 'sequence-number': WholeNumber
  readonly 'timestamp-ms': number
  readonly 'manifest-list': string
  readonly 'schema-id'?: number
  readonly summary: Readonly<Record<string, string>>
}

export interface SnapshotRef {
  readonly 'snapshot-id': WholeNumber
  readonly type: 'branch' | 'tag'
}

export interface TableMetadata {
  readonly 'format-version': number
  readonly 'table-uuid': string
  readonly location: string
  readonly 'last-sequence-number': WholeNumber
  readonly 'last-updated-ms': number
  readonly 'last-column-id': number
  readonly 'current-schema-id': number
  readonly schemas: readonly IcebergSchema[]
  readonly 'default-spec-id': number
  readonly 'partition-specs': readonly { readonly 'spec-id': number; readonly fields: readonly object[] }[]
  readonly 'last-partition-id': number
  readonly 'default-sort-order-id': number
  readonly 'sort-orders': readonly object[]
  readonly properties: Readonly<Record<string, string>>
  readonly 'current-snapshot-id'?: WholeNumber | null
  readonly refs?: Readonly<Record<string, SnapshotRef>>
  readonly snapshots?: readonly Snapshot[]
  readonly 'snapshot-log'?: readonly { readonly 'timestamp-ms': number; readonly 'snapshot-id': WholeNumber }[]
  readonly 'metadata-log'?: readonly { readonly 'timestamp-ms': number; readonly 'metadata-file': string }[]
}

export type TableUpdate =
  | { readonly action: 'add-snapshot'; readonly snapshot: Snapshot }
  | { readonly action: 'set-snapshot-ref'; readonly 'ref-name': string; readonly type: 'branch'; readonly 'snapshot-id': bigint }
  | { readonly action: 'remove-snapshots'; readonly 'snapshot-ids': readonly WholeNumber[] }
  | { readonly action: 'set-properties'; readonly updates: Readonly<Record<string, string>> }
  | { readonly action: 'add-schema'; readonly schema: IcebergSchema; readonly 'last-column-id': number }
  | { readonly action: 'set-current-schema'; readonly 'schema-id': number }

export type TableRequirement =
  | { readonly type: 'assert-table-uuid'; readonly uuid: string }
  | { readonly type: 'assert-ref-snapshot-id'; readonly ref: string; readonly 'snapshot-id': bigint | null }
  | { readonly type: 'assert-current-schema-id'; readonly 'current-schema-id': number }
  | { readonly type: 'assert-last-assigned-field-id'; readonly 'last-assigned-field-id': number }

/** A new unpartitioned table without snapshots. */
export function newTableMetadata(location: string, schema: IcebergSchema, lastColumnId: number, properties: Readonly<Record<string, string>>): TableMetadata {
  return {
    'format-version': 2,
    'table-uuid': randomUUID(),
    location,
    'last-sequence-number': 0,
    'last-updated-ms': Date.now(),
    'last-column-id': lastColumnId,
    'current-schema-id': schema['schema-id'],
    schemas: [schema],
    'default-spec-id': 0,
    'partition-specs': [{ 'spec-id': 0, fields: [] }],
    'last-partition-id': 999,
    'default-sort-order-id': 0,
    'sort-orders': [{ 'order-id': 0, fields: [] }],
    properties,
    'current-snapshot-id': null,
    refs: {},
    snapshots: [],
    'snapshot-log': [],
    'metadata-log': [],
  }
}

export function currentSchema(metadata: TableMetadata): IcebergSchema {
  return metadata.schemas.find((schema) => schema['schema-id'] === metadata['current-schema-id'])!
}

export function currentSnapshotId(metadata: TableMetadata): bigint | null {
  const id = metadata['current-snapshot-id']
  return id === undefined || id === null || BigInt(id) === -1n ? null : BigInt(id)
}

/** The snapshots of the main branch, newest first, as far as they are still known. */
export function* ancestors(metadata: TableMetadata): Generator<Snapshot, void, void> {
  const byId = new Map((metadata.snapshots ?? []).map((snapshot) => [BigInt(snapshot['snapshot-id']), snapshot]))
  for (let id = currentSnapshotId(metadata); id !== null; ) {
    const snapshot = byId.get(id)
    if (snapshot === undefined) return
    yield snapshot
    const parent = snapshot['parent-snapshot-id']
    id = parent === undefined || parent === null ? null : BigInt(parent)
  }
}

/** What a catalog server does with the same updates; for the catalog that keeps its metadata itself. */
export function applyUpdates(base: TableMetadata, updates: readonly TableUpdate[]): TableMetadata {
  let next: TableMetadata = { ...base, 'last-updated-ms': Math.max(Date.now(), base['last-updated-ms']) }
  for (const update of updates) {
    switch (update.action) {
      case 'add-snapshot':
        next = { ...next, snapshots: [...(next.snapshots ?? []), update.snapshot], 'last-sequence-number': update.snapshot['sequence-number'] }
        break
      case 'set-snapshot-ref':
        next = {
          ...next,
          'current-snapshot-id': update['snapshot-id'],
          refs: { ...next.refs, [update['ref-name']]: { 'snapshot-id': update['snapshot-id'], type: update.type } },
          'snapshot-log': [...(next['snapshot-log'] ?? []), { 'timestamp-ms': next['last-updated-ms'], 'snapshot-id': update['snapshot-id'] }],
        }
        break
      case 'remove-snapshots': {
        const gone = new Set(update['snapshot-ids'].map(BigInt))
        const keeps = (entry: { readonly 'snapshot-id': WholeNumber }) => !gone.has(BigInt(entry['snapshot-id']))
        next = { ...next, snapshots: (next.snapshots ?? []).filter(keeps), 'snapshot-log': (next['snapshot-log'] ?? []).filter(keeps) }
        break
      }
      case 'set-properties':
        next = { ...next, properties: { ...next.properties, ...update.updates } }
        break
      case 'add-schema':
        next = { ...next, schemas: [...next.schemas, update.schema], 'last-column-id': Math.max(next['last-column-id'], update['last-column-id']) }
        break
      case 'set-current-schema':
        next = { ...next, 'current-schema-id': update['schema-id'] === -1 ? next.schemas.at(-1)!['schema-id'] : update['schema-id'] }
        break
    }
  }
  return next
}
