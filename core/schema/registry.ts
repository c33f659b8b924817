/**
 * The schema registry port. Two implementations: any Confluent-compatible server, and the embedded one on disk.
 * Ids and versions are the registry's own; a schema is its JSON text.
 */
export interface SchemaRegistry extends AsyncDisposable {
  /**
   * Registers a schema under a subject and returns its id; the same schema gives the same id.
   * @throws schema.incompatible (with what breaks and the fix), schema.invalid, schema.readonly, registry.unreachable, registry.refused
   */
  register(subject: string, schema: string): Promise<number>
  /** @throws schema.unknown, registry.unreachable */
  schema(id: number): Promise<string>
  /** Subjects with at least one version that is not deleted. */
  subjects(): Promise<readonly string[]>
  /** Versions of a subject, rising. @throws schema.unknown */
  versions(subject: string): Promise<readonly SchemaVersion[]>
  /** What registering `schema` would break, in words; empty when compatible. */
  incompatibilities(subject: string, schema: string): Promise<readonly string[]>
  compatibility(subject: string): Promise<CompatibilityLevel>
  setCompatibility(subject: string, level: CompatibilityLevel): Promise<void>
}

export interface SchemaVersion {
  readonly subject: string
  readonly version: number
  readonly id: number
  readonly schema: string
}

export const COMPATIBILITY_LEVELS = ['NONE', 'BACKWARD', 'BACKWARD_TRANSITIVE', 'FORWARD', 'FORWARD_TRANSITIVE', 'FULL', 'FULL_TRANSITIVE'] as const
export type CompatibilityLevel = (typeof COMPATIBILITY_LEVELS)[number]
