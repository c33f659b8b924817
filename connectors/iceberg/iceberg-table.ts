/** One table as its only Millrace writer sees it: current metadata, live files, and commits that are fenced and safe to repeat. */
import { randomBytes, randomUUID } from 'node:crypto'
import { MillraceError } from '../../core/plugin.ts'
import type { Catalog, LoadedTable, TableIdentifier } from './catalog.ts'
import type { FileStore } from './file-store.ts'
import {
  ADDED,
  DATA,
  type DataFile,
  DELETED,
  describeManifest,
  EQUALITY_DELETES,
  EXISTING,
  type ManifestEntry,
  type ManifestFile,
  readManifest,
  readManifestList,
  writeManifest,
  writeManifestList,
} from './manifest.ts'
import { expiredSnapshots, filesOnlyIn } from './snapshot-expiry.ts'
import { ancestors, currentSchema, currentSnapshotId, type Snapshot, type TableMetadata, type TableRequirement, type TableUpdate } from './table-metadata.ts'

const WRITER_PROPERTY = 'millrace.writer'
const COMMIT_PROPERTY = 'millrace.commit'
/** Manifests of one kind that are merged into one when there are more. */
const MANIFESTS_MERGED_ABOVE = 24
const COMMIT_TRIES = 12

export interface LiveFile {
  readonly file: DataFile
  readonly sequenceNumber: bigint
  readonly fileSequenceNumber: bigint
  readonly snapshotId: bigint
  /** The manifest that lists it. */
  readonly manifest: string
}

export interface SnapshotChange {
  readonly operation: 'append' | 'overwrite' | 'delete' | 'replace'
  readonly added: readonly DataFile[]
  /** Live files that go; `all` stands for whatever is live when the commit lands. */
  readonly removed: 'all' | ReadonlySet<string>
  /** The snapshot whose rows the change holds; it lands on top of that one only. Left out when it may land on any. */
  readonly madeFrom?: bigint | null
  /** Facts of Millrace, kept in the summary and, so that they survive snapshot expiry, as table properties. */
  readonly state: Readonly<Record<string, string>>
  /** Table properties that land in the same commit. */
  readonly properties?: Readonly<Record<string, string>>
}

export interface Retention {
  readonly snapshots: number
  readonly ageMs: number
}

export class IcebergTable {
  readonly identifier: TableIdentifier
  /** Names this writer in files and summaries. */
  readonly writer = randomUUID()
  readonly #catalog: Catalog
  readonly #retention: Retention
  #table: LoadedTable
  #manifests: readonly ManifestFile[] = []
  #live: readonly LiveFile[] = []
  #entries = new Map<string, readonly ManifestEntry[]>()
  /** The newest commit of Millrace that we go on from, and own ones whose outcome we have not seen. */
  #known: string | undefined
  readonly #tried = new Set<string>()
  #writes = false
  #stale = true
  #fileNumber = 0

  constructor(catalog: Catalog, identifier: TableIdentifier, table: LoadedTable, retention: Retention) {
    this.#catalog = catalog
    this.identifier = identifier
    this.#table = table
    this.#retention = retention
  }

  get files(): FileStore {
    return this.#catalog.files
  }

  get metadata(): TableMetadata {
    return this.#table.metadata
  }

  get metadataLocation(): string | null {
    return this.#table.metadataLocation
  }

  /** Data and delete files of the current snapshot, as of the last {@link refresh} or commit. */
  get live(): readonly LiveFile[] {
    return this.#live
  }

  newFileLocation(kind: 'data' | 'deletes'): string {
    return `${this.metadata.location}/data/millrace-${this.writer}-${String(++this.#fileNumber).padStart(6, '0')}-${kind}.parquet`
  }

  /** The facts of Millrace as of the current snapshot: of its newest ancestor that has them, else of the table's properties. */
  get state(): Readonly<Record<string, string>> {
    for (const snapshot of ancestors(this.metadata)) if (snapshot.summary[COMMIT_PROPERTY] !== undefined) return snapshot.summary
    return this.metadata.properties
  }

  /** Takes the state that the table has now as the one that this writer goes on from. */
  trust(): void {
    this.#known = this.state[COMMIT_PROPERTY]
  }

  /** True once this writer tried to commit: from then on nobody else may. */
  get writes(): boolean {
    return this.#writes
  }

  /** Loads the table again unless it is known to be current. @throws sink.conflict when this writer was overtaken */
  async refresh(force = false): Promise<void> {
    if (!this.#stale && !force) return
    const table = await this.#catalog.load(this.identifier)
    if (table === null || table.metadata['table-uuid'] !== this.metadata['table-uuid']) {
      throw new MillraceError('sink.conflict', `the Iceberg table ${this.#name} was dropped or replaced by another one`, {
        fix: 'restart the node: it makes the table anew',
      })
    }
    if (table.metadata['format-version'] !== 2) {
      throw new MillraceError(
        'sink.schema_unsupported',
        `the Iceberg table ${this.#name} has format version ${table.metadata['format-version']}, Millrace writes version 2`,
        {
          fix: 'drop the table and let the sink make it again',
        },
      )
    }
    await this.#adopt(table)
    if (this.#writes) this.#verify()
    this.#stale = false
  }

  /**
   * Adds one snapshot. Conflicts with others than Millrace are retried on top of theirs; an unknown outcome is looked up.
   * @throws sink.conflict when another Millrace writer committed since {@link trust}; sink.unreachable, sink.forbidden: then {@link refresh} tells
   */
  async commit(change: SnapshotChange): Promise<void> {
    const commitId = randomUUID()
    await this.refresh()
    this.#verify()
    const base = this.#known
    for (let attempt = 0; attempt < COMMIT_TRIES; attempt++) {
      await this.refresh()
      this.#verify()
      if (this.state[COMMIT_PROPERTY] === commitId) return
      if (this.#known !== base) throw new MillraceError('sink.unreachable', `an earlier commit to ${this.#name} landed late: this one starts from it`)
      // what was made from rows that another engine has changed since would undo that change
      if (change.madeFrom !== undefined && change.madeFrom !== currentSnapshotId(this.metadata))
        throw new MillraceError('sink.unreachable', `another engine committed to ${this.#name} while it was being rewritten`)
      const prepared = await this.#prepare(change, commitId)
      this.#stale = true
      this.#writes = true
      this.#tried.add(commitId)
      const result = await this.#catalog.commit(this.identifier, this.#table, this.#requirements(), prepared.updates)
      if (result.outcome === 'committed') {
        const before = this.metadata
        this.#table = result.table
        this.#manifests = prepared.manifests
        this.#live = prepared.live
        this.#verify()
        this.#stale = false
        await this.#removeExpired(before, prepared.expired)
        return
      }
      if (result.outcome === 'unknown') {
        await this.refresh(true)
        if (this.state[COMMIT_PROPERTY] === commitId) return
        throw new MillraceError('sink.unreachable', `the catalog did not say whether the commit to ${this.#name} landed; it did not`, { cause: result.cause })
      }
      await this.files.remove(prepared.written)
    }
    throw new MillraceError('sink.unreachable', `${COMMIT_TRIES} commits to ${this.#name} in a row met another writer's`, { retryAfterMs: 1000 })
  }

  /** Commits a change of the table's metadata only. */
  async update(requirements: readonly TableRequirement[], updates: readonly TableUpdate[]): Promise<void> {
    for (let attempt = 0; attempt < COMMIT_TRIES; attempt++) {
      await this.refresh()
      this.#stale = true
      const result = await this.#catalog.commit(
        this.identifier,
        this.#table,
        [{ type: 'assert-table-uuid', uuid: this.metadata['table-uuid'] }, ...requirements],
        updates,
      )
      if (result.outcome === 'committed') {
        this.#table = result.table
        this.#stale = false
        return
      }
      if (result.outcome === 'unknown')
        throw new MillraceError('sink.unreachable', `the catalog did not say whether the change of ${this.#name} landed`, { cause: result.cause })
      if (requirements.length > 0) await this.refresh()
    }
    throw new MillraceError('sink.conflict', `the schema of ${this.#name} is changed by another writer`)
  }

  get #name(): string {
    return [...this.identifier.namespace, this.identifier.name].join('.')
  }

  /** The newest commit of Millrace must be the one that we know, or one that we tried. */
  #verify(): void {
    const newest = this.state[COMMIT_PROPERTY]
    if (newest === this.#known) return
    if (newest === undefined || !this.#tried.has(newest)) {
      throw new MillraceError('sink.conflict', `another Millrace writer committed to the Iceberg table ${this.#name}, or it was rolled back`, {
        fix: 'run one sink node per table: stop the other process, then restart this one',
      })
    }
    this.#known = newest
    this.#tried.clear()
  }

  #requirements(): readonly TableRequirement[] {
    return [
      { type: 'assert-table-uuid', uuid: this.metadata['table-uuid'] },
      { type: 'assert-ref-snapshot-id', ref: 'main', 'snapshot-id': currentSnapshotId(this.metadata) },
    ]
  }

  async #adopt(table: LoadedTable): Promise<void> {
    const current = ancestors(table.metadata).next().value as Snapshot | undefined
    const manifests = current === undefined ? [] : readManifestList(await this.files.read(current['manifest-list']), current['manifest-list'])
    const live: LiveFile[] = []
    const entries = new Map<string, readonly ManifestEntry[]>()
    for (const manifest of manifests) {
      const known = this.#entries.get(manifest.manifest_path) ?? readManifest(await this.files.read(manifest.manifest_path), manifest)
      entries.set(manifest.manifest_path, known)
      for (const entry of known) if (entry.status !== DELETED) live.push(liveFile(entry, manifest.manifest_path))
    }
    this.#table = table
    this.#manifests = manifests
    this.#entries = entries
    this.#live = live
  }

  async #prepare(change: SnapshotChange, commitId: string) {
    const { metadata } = this
    const snapshotId = newSnapshotId()
    const sequenceNumber = BigInt(metadata['last-sequence-number']) + 1n
    const schema = currentSchema(metadata)
    const specId = metadata['default-spec-id']
    const written: string[] = []
    const manifests: ManifestFile[] = []
    const fresh = new Map<string, readonly ManifestEntry[]>()
    const put = async (entries: readonly ManifestEntry[], content: 0 | 1): Promise<void> => {
      const path = `${metadata.location}/metadata/millrace-${commitId}-m${written.length}-${snapshotId}.avro`
      const bytes = writeManifest(entries, content, schema, specId)
      written.push(path)
      await this.files.write(path, bytes)
      const manifest = describeManifest(entries, { path, sizeBytes: bytes.length, specId, content, sequenceNumber, snapshotId })
      manifests.push(manifest)
      fresh.set(
        path,
        entries.map((entry) => ({
          ...entry,
          sequence_number: entry.sequence_number ?? sequenceNumber,
          file_sequence_number: entry.file_sequence_number ?? sequenceNumber,
        })),
      )
    }
    const goes = change.removed === 'all' ? () => true : (live: LiveFile) => (change.removed as ReadonlySet<string>).has(live.file.file_path)
    const survivors = this.#live.filter((live) => !goes(live))
    // a delete file that is not newer than any data file deletes nothing
    const oldest = survivors.reduce((least, live) => (live.file.content === DATA && live.sequenceNumber < least ? live.sequenceNumber : least), sequenceNumber)
    const useless = (live: LiveFile) => live.file.content === EQUALITY_DELETES && live.sequenceNumber <= oldest
    const kept = new Set(survivors.filter((live) => !useless(live)))
    for (const content of [0, 1] as const) {
      const ofKind = (file: DataFile) => (file.content === DATA ? 0 : 1) === content
      const old = this.#manifests.filter((manifest) => manifest.content === content)
      const dead = this.#live.filter((live) => ofKind(live.file) && !kept.has(live))
      const rewrites = dead.length > 0 || old.length > MANIFESTS_MERGED_ABOVE
      const mine = change.added
        .filter(ofKind)
        .map((file): ManifestEntry => ({ status: ADDED, snapshot_id: snapshotId, sequence_number: null, file_sequence_number: null, data_file: file }))
      if (!rewrites) {
        if (mine.length > 0) await put(mine, content)
        manifests.push(...old.filter((manifest) => manifest.added_files_count + manifest.existing_files_count > 0))
        continue
      }
      const entries = [
        ...mine,
        ...[...kept].filter((live) => ofKind(live.file)).map((live) => entryOf(live, EXISTING, live.snapshotId)),
        ...dead.map((live) => entryOf(live, DELETED, snapshotId)),
      ]
      if (entries.length > 0) await put(entries, content)
    }
    const parent = currentSnapshotId(metadata)
    const list = `${metadata.location}/metadata/millrace-snap-${snapshotId}-${commitId}.avro`
    written.push(list)
    await this.files.write(list, writeManifestList(manifests, snapshotId, parent, sequenceNumber))
    await this.files.syncFolder(`${metadata.location}/metadata`)
    if (change.added.length > 0) await this.files.syncFolder(`${metadata.location}/data`)
    const state = { ...change.state, [WRITER_PROPERTY]: this.writer, [COMMIT_PROPERTY]: commitId }
    const live = manifests.flatMap((manifest) =>
      (fresh.get(manifest.manifest_path) ?? this.#entries.get(manifest.manifest_path) ?? [])
        .filter((entry) => entry.status !== DELETED)
        .map((entry) => liveFile(entry, manifest.manifest_path)),
    )
    const snapshot: Snapshot = {
      'snapshot-id': snapshotId,
      ...(parent === null ? {} : { 'parent-snapshot-id': parent }),
      'sequence-number': sequenceNumber,
      'timestamp-ms': Math.max(Date.now(), metadata['last-updated-ms']),
      'manifest-list': list,
      'schema-id': schema['schema-id'],
      summary: { operation: change.operation, ...counts(change, this.#live, live), ...state },
    }
    for (const [path, entries] of fresh) this.#entries.set(path, entries)
    const expired = expiredSnapshots(metadata, this.#retention)
    const updates: TableUpdate[] = [
      { action: 'add-snapshot', snapshot },
      { action: 'set-snapshot-ref', 'ref-name': 'main', type: 'branch', 'snapshot-id': snapshotId },
      { action: 'set-properties', updates: { ...state, ...change.properties } },
    ]
    if (expired.length > 0) updates.push({ action: 'remove-snapshots', 'snapshot-ids': expired.map((old) => old['snapshot-id']) })
    return { updates, manifests, live, written, expired }
  }

  async #removeExpired(before: TableMetadata, expired: readonly Snapshot[]): Promise<void> {
    const listed = new Set(this.#manifests.map((manifest) => manifest.manifest_path))
    for (const path of this.#entries.keys()) if (!listed.has(path)) this.#entries.delete(path)
    if (expired.length === 0) return
    const gone = new Set(expired.map((snapshot) => BigInt(snapshot['snapshot-id'])))
    const kept = (before.snapshots ?? []).filter((snapshot) => !gone.has(BigInt(snapshot['snapshot-id'])))
    await this.files.remove(
      await filesOnlyIn(this.files, expired, kept, { manifests: this.#manifests, paths: new Set(this.#live.map((live) => live.file.file_path)) }),
    )
  }
}

function liveFile(entry: ManifestEntry, manifest: string): LiveFile {
  return {
    file: entry.data_file,
    sequenceNumber: entry.sequence_number ?? 0n,
    fileSequenceNumber: entry.file_sequence_number ?? entry.sequence_number ?? 0n,
    snapshotId: entry.snapshot_id ?? 0n,
    manifest,
  }
}

function entryOf(live: LiveFile, status: number, snapshotId: bigint): ManifestEntry {
  return { status, snapshot_id: snapshotId, sequence_number: live.sequenceNumber, file_sequence_number: live.fileSequenceNumber, data_file: live.file }
}

function newSnapshotId(): bigint {
  return randomBytes(8).readBigUInt64BE() >> 1n || 1n
}

function counts(change: SnapshotChange, before: readonly LiveFile[], after: readonly LiveFile[]): Record<string, string> {
  const rowsOf = (files: readonly DataFile[], content: number) => files.reduce((n, file) => (file.content === content ? n + file.record_count : n), 0n)
  const filesOf = (files: readonly DataFile[], content: number) => files.filter((file) => file.content === content).length
  const now = after.map((live) => live.file)
  const paths = new Set(now.map((file) => file.file_path))
  const gone = before.filter((live) => !paths.has(live.file.file_path)).map((live) => live.file)
  const facts: Record<string, bigint | number> = {
    'added-data-files': filesOf(change.added, DATA),
    'added-records': rowsOf(change.added, DATA),
    'added-delete-files': filesOf(change.added, EQUALITY_DELETES),
    'added-equality-deletes': rowsOf(change.added, EQUALITY_DELETES),
    'deleted-data-files': filesOf(gone, DATA),
    'deleted-records': rowsOf(gone, DATA),
    'removed-delete-files': gone.length - filesOf(gone, DATA),
  }
  const totals: Record<string, bigint | number> = {
    'total-data-files': filesOf(now, DATA),
    'total-records': rowsOf(now, DATA),
    'total-delete-files': now.length - filesOf(now, DATA),
    'total-equality-deletes': rowsOf(now, EQUALITY_DELETES),
    'total-position-deletes': rowsOf(now, 1),
    'total-files-size': now.reduce((n, file) => n + file.file_size_in_bytes, 0n),
  }
  return Object.fromEntries([...Object.entries(facts).filter(([, n]) => BigInt(n) !== 0n), ...Object.entries(totals)].map(([name, n]) => [name, String(n)]))
}
