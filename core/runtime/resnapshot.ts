import { readAnew, startOver } from '../capture/start-over.ts'
import { MillraceError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import type { Mesh } from '../mesh/mesh.ts'

/** What is to be read again: all tables of a source that starts over, or one table, after which a parked one goes on. */
export interface Resnapshot {
  readonly node: string
  /** `namespace.name`; null: all. */
  readonly table: string | null
}

/** @param text NODE or NODE/TABLE @throws node.unknown */
export function parseResnapshot(mesh: Mesh, text: string): Resnapshot {
  const slash = text.indexOf('/')
  const node = slash < 0 ? text : text.slice(0, slash)
  if (!mesh.sources.some(({ name }) => name === node)) {
    throw new MillraceError('node.unknown', `the mesh has no source ${node}`, { fix: `one of: ${mesh.sources.map(({ name }) => name).join(', ')}` })
  }
  return { node, table: slash < 0 ? null : text.slice(slash + 1) }
}

/** Looks whether it can be, without taking the node over. @throws config.invalid for a table that the source does not know */
export async function checkResnapshot(log: Log, { node, table }: Resnapshot): Promise<void> {
  if (table !== null && readAnew(await log.progress(node), table) === null) throw unknownTable(node, table)
}

/** Makes it durable that the source, not running meanwhile, reads again. @throws config.invalid for a table that it does not know */
export async function resnapshot(log: Log, { node, table }: Resnapshot): Promise<void> {
  await using writer = await log.openWriter(node)
  if (table === null) {
    if (writer.progress.size > 0) await writer.append({ frames: [], count: 0, progress: startOver(writer.progress) })
    return
  }
  const progress = readAnew(writer.progress, table)
  if (progress === null) throw unknownTable(node, table)
  await writer.append({ frames: [], count: 0, progress })
}

/** Why a source that an operator has paused cannot be asked to read again. */
export function pausedSource(node: string): MillraceError {
  return new MillraceError('config.invalid', `the source ${node} is paused and reads nothing`, {
    fix: `millrace resume FILE ${node} first, and then this again`,
  })
}

function unknownTable(node: string, table: string): MillraceError {
  return new MillraceError('config.invalid', `the source ${node} has captured no table ${table}`, { fix: 'write it as NODE/schema.table' })
}
