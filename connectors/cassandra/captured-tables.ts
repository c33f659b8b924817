import { invariant, type TablePatterns, type TableSchema } from '../../core/plugin.ts'
import { type CatalogTable, readCatalog } from './catalog.ts'
import type { TableDescription } from './commit-log-events.ts'
import type { CqlClient } from './cql-client.ts'
import type { KnownRows } from './known-rows.ts'
import { type MappedTable, mapCaptured } from './table-mapping.ts'
import type { TypeMappingOptions } from './type-mapping.ts'

/** How tables are kept after they are gone from the catalog. */
interface StoredTable {
  readonly description: TableDescription
  readonly droppedAt: readonly (readonly [string, number])[]
  /** The last truncation that was noticed, in milliseconds by the clock of a node; 0, or absent: none. */
  readonly truncatedAt?: number
  /** When it was noticed, in milliseconds by our clock; 0, or absent: the stream is past it. */
  readonly noticedAt?: number
}

interface Shape extends StoredTable {
  readonly text: string
  mapped: MappedTable | null
  /** Truncation that `mapped` is of. */
  mappedFor?: number
}

function storedText({ description, droppedAt, truncatedAt = 0, noticedAt = 0 }: StoredTable): string {
  return JSON.stringify({ description, droppedAt, truncatedAt, noticedAt } satisfies StoredTable)
}

/** What the tables of the cluster look like: those of the catalog, and those that were dropped and may still be in the log. */
export class CapturedTables {
  readonly #client: CqlClient
  readonly #patterns: TablePatterns
  readonly #mapping: TypeMappingOptions
  readonly #known: KnownRows
  #catalog: readonly CatalogTable[] = []
  /** By id, also of tables that are gone. */
  readonly #shapes = new Map<string, Shape>()
  readonly #byDescription = new WeakMap<TableDescription, Shape>()
  #refreshing: Promise<void> | null = null
  /** Called with all descriptions whenever one is another. */
  onChange: ((tables: readonly TableDescription[]) => void) | null = null

  constructor(client: CqlClient, patterns: TablePatterns, mapping: TypeMappingOptions, known: KnownRows) {
    this.#client = client
    this.#patterns = patterns
    this.#mapping = mapping
    this.#known = known
    for (const text of known.descriptions().values()) this.#keep(text)
  }

  #keep(text: string): void {
    const stored = JSON.parse(text) as StoredTable
    const shape: Shape = { ...stored, text: storedText(stored), mapped: null }
    this.#shapes.set(shape.description.id, shape)
    this.#byDescription.set(shape.description, shape)
  }

  /** Looks at the catalog. One at a time: who asks meanwhile waits for a look that begins after. */
  async refresh(): Promise<void> {
    while (this.#refreshing !== null) await this.#refreshing.catch(() => {})
    this.#refreshing = this.#look().finally(() => {
      this.#refreshing = null
    })
    await this.#refreshing
  }

  async #look(): Promise<void> {
    const catalog = await readCatalog(this.#client, this.#patterns)
    this.#catalog = catalog
    const changed = new Map<string, string>()
    const emptied: string[] = []
    for (const { description, droppedAt, ...now } of catalog) {
      const before = this.#shapes.get(description.id)
      // a node that told a later one may not answer now
      const truncatedAt = Math.max(now.truncatedAt, before?.truncatedAt ?? 0)
      const isTruncated = truncatedAt > (before?.truncatedAt ?? 0)
      const noticedAt = isTruncated ? Date.now() : before?.noticedAt
      const text = storedText({ description, droppedAt: [...droppedAt], truncatedAt, ...(noticedAt === undefined ? {} : { noticedAt }) })
      if (before?.text !== text) changed.set(description.id, text)
      if (isTruncated) emptied.push(description.id)
    }
    if (changed.size === 0) return
    // durable before anything is read by it: once a table is dropped nobody else knows its types
    this.#known.describe(changed, emptied)
    for (const text of changed.values()) this.#keep(text)
    this.onChange?.(this.descriptions())
  }

  /**
   * The table was truncated, and the stream may not be past that. No log says where in it that was: until then each change is settled by reading its row.
   */
  isSettling(id: string): boolean {
    return (this.#shapes.get(id)?.noticedAt ?? 0) > 0
  }

  /** Some table settles whose truncation was noticed before this time (milliseconds by our clock). */
  settlesBefore(time: number): boolean {
    return [...this.#shapes.keys()].some((id) => this.isSettling(id) && this.#shapes.get(id)!.noticedAt! < time)
  }

  /** The stream has, durably, all that was written before this time. */
  settle(time: number): void {
    const settled = [...this.#shapes.values()].filter(({ noticedAt = 0 }) => noticedAt > 0 && noticedAt < time)
    if (settled.length === 0) return
    this.#known.describe(new Map(settled.map((shape) => [shape.description.id, storedText({ ...shape, noticedAt: 0 })])), [])
    for (const shape of settled) Object.assign(shape, { text: storedText({ ...shape, noticedAt: 0 }), noticedAt: 0 })
  }

  /** All tables of the cluster, and those that were. */
  descriptions(): readonly TableDescription[] {
    return [...this.#shapes.values()].map(({ description }) => description)
  }

  /** What is captured now. */
  list(): readonly TableSchema[] {
    return this.#catalog.filter(({ description }) => description.captured).map(({ description }) => this.byId(description.id).table)
  }

  /** In its newest shape. @throws source.schema_unsupported */
  byId(id: string): MappedTable {
    const shape = this.#shapes.get(id)
    invariant(shape !== undefined, 'a table was described before')
    return this.of(shape.description)
  }

  /** In the shape of one of {@link descriptions}, also of an older one. @throws source.schema_unsupported */
  of(description: TableDescription): MappedTable {
    const shape = this.#byDescription.get(description)
    invariant(shape !== undefined, 'a description was given before')
    // of the table that it is now, also when its columns are those of before
    const truncatedAt = this.#shapes.get(description.id)!.truncatedAt ?? 0
    if (shape.mapped === null || shape.mappedFor !== truncatedAt) {
      shape.mapped = mapCaptured({ description, droppedAt: new Map(shape.droppedAt), truncatedAt }, this.#mapping)
      shape.mappedFor = truncatedAt
    }
    return shape.mapped
  }

  /** As it is in the catalog; null: there is no such table that can be captured. */
  current(namespace: string, name: string): MappedTable | null {
    const found = this.find(namespace, name)
    return found === null || !found.description.captured ? null : this.byId(found.description.id)
  }

  find(namespace: string, name: string): CatalogTable | null {
    return this.#catalog.find(({ description }) => description.keyspace === namespace && description.name === name) ?? null
  }
}
