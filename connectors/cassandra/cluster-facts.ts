import type { CqlClient } from './cql-client.ts'

/** What the node that answers says of itself. */
export interface ClusterFacts {
  readonly version: string
  readonly partitioner: string
  readonly cdcEnabled: boolean | null
  readonly cdcRaw: string | null
  /** false: when the space is full, the oldest segments are dropped. */
  readonly blocksWrites: boolean
  /** Bytes of `cdc_total_space`; null: it does not say. */
  readonly space: number | null
  /** Milliseconds between two syncs of the log; 0: before each acknowledgement. */
  readonly syncMs: number
}

const DEFAULT_SYNC_MS = 10_000

export async function readFacts(client: CqlClient): Promise<ClusterFacts> {
  const doing = 'to look at the node'
  const [local] = await client.rows(doing, 'SELECT release_version, partitioner FROM system.local')
  const rows = await client.rows(doing, 'SELECT name, value FROM system_views.settings')
  const settings = new Map(rows.map(({ name, value }) => [String(name), value === null ? null : String(value)]))
  const first = (...names: string[]) => names.map((name) => settings.get(name)).find((value) => value != null) ?? null
  const period = first('commitlog_sync_period', 'commitlog_sync_period_in_ms')
  const space = first('cdc_total_space', 'cdc_total_space_in_mb')
  const enabled = first('cdc_enabled')
  return {
    version: String(local?.release_version),
    partitioner: String(local?.partitioner),
    cdcEnabled: enabled === null ? null : enabled === 'true',
    cdcRaw: first('cdc_raw_directory'),
    blocksWrites: first('cdc_block_writes') !== 'false',
    space: space === null ? null : bytesOf(space),
    syncMs: first('commitlog_sync') === 'batch' ? 0 : period === null ? DEFAULT_SYNC_MS : millisOf(period),
  }
}

/** `10000ms`, `10s`; without a unit milliseconds. */
function millisOf(text: string): number {
  const [, number, unit] = /^(\d+)(ms|s|m)?$/.exec(text) ?? []
  if (number === undefined) return DEFAULT_SYNC_MS
  return Number(number) * (unit === 's' ? 1000 : unit === 'm' ? 60_000 : 1)
}

/** `4096MiB`; without a unit mebibytes. */
function bytesOf(text: string): number | null {
  const [, number, unit] = /^(\d+)(B|KiB|MiB|GiB)?$/.exec(text) ?? []
  if (number === undefined || Number(number) === 0) return null
  return Number(number) * { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 }[(unit ?? 'MiB') as 'B' | 'KiB' | 'MiB' | 'GiB']
}
