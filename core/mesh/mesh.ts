import type { SourceLocation } from '../errors.ts'
import type { SinkPlugin, SourcePlugin } from '../plugin.ts'
import type { LogConfig, RegistryConfig } from './mesh-schema.ts'
import type { Settings } from './settings.ts'
import type { StreamFilter } from './stream-pattern.ts'

/** A mesh file that passed the offline lint. Secrets are still references; they are resolved when a node opens. */
export interface Mesh {
  readonly name: string
  /** The file as the user named it, and its folder. */
  readonly file: string
  readonly dir: string
  /** Absolute. */
  readonly dataDir: string
  readonly log: Settings<LogConfig>
  readonly registry: Settings<RegistryConfig>
  readonly sources: readonly SourceNode[]
  readonly sinks: readonly SinkNode[]
}

export interface SourceNode {
  readonly role: 'source'
  readonly name: string
  readonly plugin: SourcePlugin<unknown>
  readonly settings: Settings<unknown>
  readonly topics: TopicSettings
  readonly snapshot: SnapshotSettings
  readonly where: SourceLocation
}

export interface SinkNode {
  readonly role: 'sink'
  readonly name: string
  readonly plugin: SinkPlugin<unknown>
  readonly settings: Settings<unknown>
  readonly from: StreamFilter
  readonly onRejected: 'dead-letter' | 'halt'
  readonly where: SourceLocation
}

export interface TopicSettings {
  readonly partitions: number
  readonly retentionMs: number | null
  readonly compacted: boolean
  readonly replicationFactor: number | null
}

export interface SnapshotSettings {
  readonly mode: 'initial' | 'never'
  readonly chunkRows: number
  readonly chunkBytes: number
  readonly parallel: number
}
