/** Files of Millrace that no snapshot refers to: left by a writer that was killed or whose commit failed. */
import type { IcebergTable } from './iceberg-table.ts'
import { readManifest, readManifestList } from './manifest.ts'

/** Younger files may belong to a commit that is still on its way. */
const ORPHAN_AGE_MS = 15 * 60_000

/** Looks at names that Millrace gives only, so that no other engine's files are touched. */
export async function orphans(table: IcebergTable): Promise<readonly string[]> {
  const { files, metadata } = table
  const old = [...(await files.list(`${metadata.location}/data`)), ...(await files.list(`${metadata.location}/metadata`))].filter(
    ({ name, ageMs }) => ageMs > ORPHAN_AGE_MS && name.startsWith('millrace-'),
  )
  if (old.length === 0) return []
  const used = new Set<string>()
  for (const snapshot of metadata.snapshots ?? []) {
    used.add(snapshot['manifest-list'])
    for (const manifest of readManifestList(await files.read(snapshot['manifest-list']), snapshot['manifest-list'])) {
      if (used.has(manifest.manifest_path)) continue
      used.add(manifest.manifest_path)
      for (const entry of readManifest(await files.read(manifest.manifest_path), manifest)) used.add(entry.data_file.file_path)
    }
  }
  return old.flatMap((file) => (used.has(file.location) ? [] : [file.location]))
}
