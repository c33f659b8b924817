/** Which snapshots go, and which files go with them. */
import type { FileStore } from './file-store.ts'
import { type ManifestFile, readManifest, readManifestList } from './manifest.ts'
import { ancestors, type Snapshot, type TableMetadata } from './table-metadata.ts'

/** Expire in groups: finding the files costs reading manifests. */
const EXPIRE_AT_ONCE = 8

/**
 * Snapshots of the main branch beyond the newest `snapshots` and older than `ageMs`; none until a few are due. Snapshots that a branch or tag
 * names, and all they descend from, stay; so does everything when the table says `gc.enabled=false`.
 */
export function expiredSnapshots(metadata: TableMetadata, retention: { readonly snapshots: number; readonly ageMs: number }): readonly Snapshot[] {
  if (metadata.properties['gc.enabled'] === 'false') return []
  const byId = new Map((metadata.snapshots ?? []).map((snapshot) => [BigInt(snapshot['snapshot-id']), snapshot]))
  const held = new Set<bigint>()
  for (const [name, ref] of Object.entries(metadata.refs ?? {})) {
    if (name === 'main') continue
    for (let at = byId.get(BigInt(ref['snapshot-id'])); at !== undefined; ) {
      held.add(BigInt(at['snapshot-id']))
      const parent: Snapshot['parent-snapshot-id'] = at['parent-snapshot-id']
      at = parent === undefined || parent === null ? undefined : byId.get(BigInt(parent))
    }
  }
  const before = Date.now() - retention.ageMs
  const due = [...ancestors(metadata)]
    .slice(retention.snapshots)
    .filter((snapshot) => snapshot['timestamp-ms'] < before && !held.has(BigInt(snapshot['snapshot-id'])))
  return due.length < EXPIRE_AT_ONCE ? [] : due
}

/** Manifest lists, manifests and data files that only `expired` snapshots refer to. */
export async function filesOnlyIn(
  files: FileStore,
  expired: readonly Snapshot[],
  kept: readonly Snapshot[],
  current: { readonly manifests: readonly ManifestFile[]; readonly paths: ReadonlySet<string> },
): Promise<readonly string[]> {
  const listOf = async (snapshot: Snapshot) => readManifestList(await files.read(snapshot['manifest-list']), snapshot['manifest-list'])
  const keptManifests = new Map(current.manifests.map((manifest) => [manifest.manifest_path, manifest]))
  for (const snapshot of kept) for (const manifest of await listOf(snapshot)) keptManifests.set(manifest.manifest_path, manifest)
  const dead = new Map<string, ManifestFile>()
  for (const snapshot of expired) {
    for (const manifest of await listOf(snapshot)) if (!keptManifests.has(manifest.manifest_path)) dead.set(manifest.manifest_path, manifest)
  }
  const found = [...expired.map((snapshot) => snapshot['manifest-list']), ...dead.keys()]
  if (dead.size === 0) return found
  const suspects = new Set<string>()
  for (const manifest of dead.values())
    for (const entry of readManifest(await files.read(manifest.manifest_path), manifest)) suspects.add(entry.data_file.file_path)
  for (const path of current.paths) suspects.delete(path)
  for (const manifest of keptManifests.values()) {
    if (suspects.size === 0) break
    for (const entry of readManifest(await files.read(manifest.manifest_path), manifest)) if (entry.status !== 2) suspects.delete(entry.data_file.file_path)
  }
  return [...found, ...suspects]
}
