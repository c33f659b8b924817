import { MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import { SNAPSHOT_ENTRY, type SnapshotProgress } from '../event/snapshot-progress.ts'
import { type TableSchema, tableId } from '../event/table-schema.ts'
import type { ChunkedSnapshot } from './chunked-snapshot.ts'
import type { KnownParts } from './known-parts.ts'
import type { LogShapes } from './log-shapes.ts'
import type { ParkedTables } from './parked-tables.ts'
import type { SourceConnector } from './source-connector.ts'

type TableName = Pick<TableSchema, 'namespace' | 'name'>

export interface WatchedCapture {
  readonly connector: Pick<SourceConnector, 'isRewritten' | 'whyAbsent' | 'parts' | 'unfit'>
  readonly progress: ReadonlyMap<string, Json>
  readonly snapshot: ChunkedSnapshot
  readonly shapes: LogShapes
  readonly parked: ParkedTables
  readonly parts: KnownParts
  readonly park: (table: TableName, error: MillraceError) => void
  /** The same of a table that nothing was captured of. */
  readonly name: (table: TableName, error: MillraceError) => void
}

/**
 * Compares the source's tables, each time they are listed, with what the log has of them: takes up new ones, has those read again whose rows changed without a
 * change in the stream, reads rows that came or went with a whole part of a table, and parks tables that are gone, if anything of them was captured. The list
 * may be ahead of the stream: a reading is placed where its view belongs.
 */
export class TableWatch {
  readonly #of: WatchedCapture
  /** The last pair of shapes that was judged, by table: asked once. */
  readonly #judged = new Map<string, { readonly before: TableSchema; readonly now: TableSchema }>()
  /** Tables that may be missed: those ever taken up. */
  readonly #known = new Map<string, TableName>()

  constructor(of: WatchedCapture) {
    this.#of = of
    for (const key of of.progress.keys()) {
      if (!key.startsWith(SNAPSHOT_ENTRY)) continue
      const id = key.slice(SNAPSHOT_ENTRY.length)
      const dot = id.indexOf('.')
      this.#known.set(id, of.shapes.get(id) ?? { namespace: id.slice(0, dot), name: id.slice(dot + 1) })
    }
  }

  async take(tables: readonly TableSchema[]): Promise<void> {
    const { snapshot, parked, progress } = this.#of
    const there = new Set<string>()
    const byId = Map.groupBy(tables, tableId)
    this.#nameUnfit()
    for (const table of tables) {
      const id = tableId(table)
      there.add(id)
      this.#known.set(id, table)
      if (parked.get(id)?.code === 'source.table_gone') parked.release(id)
      const namesakes = byId.get(id)!
      // progress knows one table of an id
      if (namesakes.length > 1) this.#of.park(table, namedAlike(id, namesakes))
      if (parked.get(id) !== undefined) continue
      snapshot.add(table, progress)
      await this.#compare(id, table)
      await this.#follow(id, table)
    }
    for (const [id, table] of [...this.#known]) if (!there.has(id) && parked.get(id) === undefined) await this.#miss(id, table)
  }

  /** Nothing of them was captured; those that can be now, or are gone, are not named any more. */
  #nameUnfit(): void {
    const { connector, parked, name } = this.#of
    const unfit = connector.unfit?.() ?? []
    const ids = new Set(unfit.map(({ table }) => tableId(table)))
    for (const { table, code } of parked.status()) if (code === 'source.no_identity' && !ids.has(table)) parked.release(table)
    // one that was captured before is missed
    for (const { table, error } of unfit) if (!this.#known.has(tableId(table))) name(table, error)
  }

  async #compare(id: string, table: TableSchema): Promise<void> {
    const { connector, shapes, snapshot } = this.#of
    const before = shapes.get(id)
    if (before === undefined) return
    const judged = this.#judged.get(id)
    if (judged?.before === before && judged.now === table) return
    // the rows that come first may be of an older view than this list: what they are is judged once they are written
    if (!snapshot.isUnbegun(id)) this.#judged.set(id, { before, now: table })
    const now = shapes.widened(table)
    const change = this.#changeOf(now, id)
    if (change === 'replaced') snapshot.reread(table, true)
    // the log may have come to another shape in the meantime
    else if (change === 'changed' && (await connector.isRewritten(before, now)) && shapes.get(id) === before) snapshot.reread(table, false)
  }

  async #follow(id: string, table: TableSchema): Promise<void> {
    const { connector, parked, parts, progress, snapshot } = this.#of
    const before = parts.get(id)
    const moved = (await connector.parts?.(table, before)) ?? null
    if (moved === null || parked.get(id) !== undefined || JSON.stringify(moved.now) === JSON.stringify(before)) return
    // I5: that it is to be read and what it is made of land together; who wants no existing rows is spared these too
    if (moved.left && snapshot.readsRows) {
      snapshot.drop(id)
      snapshot.add(table, progress)
    } else if (moved.came !== null && snapshot.readsRows) snapshot.readPart(table, moved.came)
    parts.set(id, moved.now)
  }

  /** A key that changed may change back before the stream or a chunk meets it: they decide. */
  #changeOf(now: TableSchema, id: string): ReturnType<LogShapes['change']> {
    const { shapes, snapshot } = this.#of
    try {
      return snapshot.isEmptied(id) ? 'same' : shapes.change(now, false)
    } catch (error) {
      if (error instanceof MillraceError && error.code === 'source.key_changed') return 'same'
      throw error
    }
  }

  async #miss(id: string, table: TableName): Promise<void> {
    const { connector, park, progress, shapes, snapshot } = this.#of
    const why = await connector.whyAbsent(table)
    // one of which nothing was captured leaves nothing behind that could be stale
    if (why !== null && shapes.get(id) !== undefined) {
      park(
        table,
        new MillraceError('source.table_gone', `${id} ${why}: its stream and its targets keep the rows they have`, {
          fix: 'drop its targets, or bring it back, which reads it again by itself',
        }),
      )
      return
    }
    // what changes while it is left out is in no stream
    this.#known.delete(id)
    const entry = progress.get(SNAPSHOT_ENTRY + id) as SnapshotProgress | undefined
    if (snapshot.has(id) || entry?.done === true || (entry?.done === false && entry.clear !== true)) snapshot.drop(id)
  }
}

function namedAlike(id: string, tables: readonly TableName[]): MillraceError {
  const names = tables.map(({ namespace, name }) => `"${namespace}"."${name}"`).join(' and ')
  return new MillraceError('source.schema_unsupported', `${names} are both called ${id} here, since their names have dots: neither is captured`, {
    fix: 'rename one of them, or its schema',
  })
}
