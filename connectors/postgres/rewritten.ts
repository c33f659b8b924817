import type pg from 'pg'
import type { TableSchema } from '../../core/plugin.ts'
import { FIRST_LOST_ID } from './relation-columns.ts'

/**
 * Existing rows may read differently than before without a change in the WAL: a column came with a default or in the place of one of its name, or has another
 * type, which the source may write differently although Millrace reads it alike; or it was not known which column it was.
 */
export async function isRewritten(client: pg.ClientBase, before: TableSchema, now: TableSchema): Promise<boolean> {
  const wasLost = before.columns.some(({ id }) => id >= FIRST_LOST_ID && now.columns.every((column) => column.id !== id))
  if (wasLost) return true
  const added = new Set<number>()
  for (const column of now.columns) {
    const old = before.columns.find(({ id }) => id === column.id)
    if (old === undefined && before.columns.some(({ name }) => name === column.name)) return true
    if (old === undefined) added.add(column.id)
    else if (JSON.stringify(old.type) !== JSON.stringify(column.type) || !keepsValues(old.sourceType, column.sourceType)) return true
  }
  return added.size > 0 && (await filledColumns(client, now)).some((id) => added.has(id))
}

/** Types of which Postgres leaves the values as they are when only their limit becomes wider. */
const WITH_LIMIT = /^(?:character varying|bit varying|interval|time(?:stamp)? with)/

/** Whether values stay what they are when a column's type becomes another one that Millrace reads alike (json and jsonb, char and text). */
function keepsValues(before: string, now: string): boolean {
  if (before === now) return true
  const base = (type: string) => type.replace(/\(\d+\)/, '').replace(/^text\b/, 'character varying')
  const limit = (type: string) => Number(/\((\d+)\)/.exec(type)?.[1] ?? Number.POSITIVE_INFINITY)
  return WITH_LIMIT.test(base(before)) && base(before) === base(now) && limit(before) <= limit(now)
}

/** Attnums of columns that rows may have a value in although none was written: those with a default, or that had one, as NOT NULL shows. */
async function filledColumns(client: pg.ClientBase, table: TableSchema): Promise<readonly number[]> {
  const { rows } = await client.query<{ id: number }>(
    `select attnum::int as id from pg_attribute where attrelid = $1 and attnum > 0 and (atthasdef or atthasmissing or attidentity <> '' or attnotnull)`,
    [Number(table.incarnation)],
  )
  return rows.map(({ id }) => id)
}
