import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError } from '../../core/plugin.ts'
import { fileMark } from './binlog-place.ts'
import { GtidSet, MariadbPosition } from './gtid-set.ts'
import { readEnd, type Server, statusStatement } from './server.ts'
import type { Row, WireConnection } from './wire-connection.ts'

/** The place of a view within the stream: what has been committed before it, in the numbers that {@link ChangeStream} counts. */
export interface View {
  readonly mark: bigint
  /** Microseconds since epoch. */
  readonly readAt: bigint
}

const BEGIN = 'start transaction with consistent snapshot, read only'
const NOW = 'select cast(unix_timestamp(now(6)) * 1000000 as signed)'
const MARIADB_PLACE = `show status like 'binlog_snapshot_%'`
const MOST_POLL_MS = 50

/** What says which transactions of MySQL are being committed. */
const COMMIT_LOCKS = 'wait/lock/metadata/sql/mdl'
/** Without it no instrument notes anything, whatever is said of it. */
const ALL_CONSUMER = 'global_instrumentation'
/**
 * Transactions that are being committed: each holds a metadata lock for that, from before it is written to the binlog until its rows can be seen. The row with
 * the lock 0: whether the server notes such locks, by its instrument and the consumer of all, and how many it failed to.
 */
export const COMMITTING = `select (select count(*) from performance_schema.setup_instruments where name = '${COMMIT_LOCKS}' and enabled = 'YES'),
    (select count(*) from performance_schema.setup_consumers where name = '${ALL_CONSUMER}' and enabled = 'YES'),
    (select cast(coalesce(sum(variable_value), 0) as unsigned) from performance_schema.global_status
      where variable_name in ('Performance_schema_metadata_lock_lost', 'Performance_schema_thread_classes_lost', 'Performance_schema_thread_instances_lost')), 0
  union all select owner_thread_id, owner_event_id, 0, object_instance_begin from performance_schema.metadata_locks
    where object_type = 'COMMIT' and lock_type = 'INTENTION_EXCLUSIVE' and lock_status = 'GRANTED'`

/** @returns the commits of {@link COMMITTING}, each as a text of its own. @throws source.unprepared */
export function committing(rows: readonly Row[]): readonly string[] {
  const [instrument, consumer, lost] = rows.find(([, , , lock]) => lock === '0') ?? []
  if (instrument !== '1') throw notNoted('instrument', COMMIT_LOCKS)
  if (consumer !== '1') throw notNoted('consumer', ALL_CONSUMER)
  if (lost !== '0') {
    throw new MillraceError(
      'source.unprepared',
      'performance_schema had no room for all locks or sessions, so it does not say which transactions are being committed',
      {
        fix: 'set performance_schema_max_metadata_locks and performance_schema_max_thread_instances = -1, performance_schema_max_thread_classes = 1024 in the server configuration, and restart it',
      },
    )
  }
  return rows.filter(([, , , lock]) => lock !== '0').map((commit) => commit.join())
}

/** Locks that are held as it is switched on are not noted either. */
function notNoted(kind: 'instrument' | 'consumer', name: string): MillraceError {
  return new MillraceError('source.unprepared', `performance_schema does not note which transactions are being committed: the ${kind} ${name} is off`, {
    fix:
      `while nothing is being committed: UPDATE performance_schema.setup_${kind}s SET enabled = 'YES' WHERE name = '${name}'; ` +
      `and performance_schema_${kind === 'instrument' ? `instrument = '${name}=ON'` : `consumer_${name} = ON`} in the server configuration`,
  })
}

/**
 * Begins a transaction with a view of its own. MySQL by GTID: everything in `gtid_executed` as it was before is in the view, for a GTID is added once its changes
 * can be seen; the view may have a few transactions more. MySQL by file: the same of the end of the binlog as it was before those that were being committed
 * then had ended. MariaDB: the view's exact place.
 */
export async function takeView(connection: WireConnection, server: Server, signal: AbortSignal): Promise<View> {
  if (server.flavor === 'mariadb') {
    const [, status, now] = await connection.queries([BEGIN, MARIADB_PLACE, NOW])
    const { file, position } = snapshotPlace(status!)
    return { mark: fileMark(file, position), readAt: readAt(now!) }
  }
  if (!server.byFile) {
    const [executed, , now] = await connection.queries(['select @@global.gtid_executed', BEGIN, NOW])
    return { mark: BigInt(GtidSet.parse(executed![0]![0]!).size), readAt: readAt(now!) }
  }
  // what is in the binlog and cannot be seen yet is among those that are being committed, if these are asked for after its end
  const [status, rows] = await connection.queries([statusStatement(server), COMMITTING])
  for (let left = committing(rows!), waitMs = 1; left.length > 0; waitMs = Math.min(waitMs * 2, MOST_POLL_MS)) {
    await delay(waitMs, undefined, { signal })
    const now = new Set(committing(await connection.query(COMMITTING)))
    left = left.filter((commit) => now.has(commit))
  }
  const [, now] = await connection.queries([BEGIN, NOW])
  return { mark: endMark(status!), readAt: readAt(now!) }
}

function readAt(now: readonly Row[]): bigint {
  return BigInt(now[0]![0]!)
}

function endMark(status: readonly Row[]): bigint {
  const { file, position } = readEnd(status)
  return fileMark(file, position)
}

function snapshotPlace(status: readonly Row[]): { readonly file: string; readonly position: number } {
  const of = new Map(status.map(([name, value]) => [name!.toLowerCase(), value ?? '']))
  return { file: of.get('binlog_snapshot_file') ?? '', position: Number(of.get('binlog_snapshot_position') ?? 0) }
}

/**
 * Begins a transaction with a view whose place is known exactly, as a number that the commits in it have at most, and others exceed; null when commits came too
 * thick for that (MySQL): try again.
 */
export async function takeExactView(connection: WireConnection, server: Server): Promise<bigint | null> {
  if (server.flavor === 'mariadb') {
    const [, status] = await connection.queries([BEGIN, MARIADB_PLACE])
    const { file, position } = snapshotPlace(status!)
    const [row] = await connection.query(`select binlog_gtid_pos('${file}', ${position})`)
    return BigInt(MariadbPosition.parse(row![0] ?? '').sum)
  }
  // bound by two looks at the end of the log: nothing was written to it, and nothing became visible, while the view was taken
  const end = statusStatement(server)
  const [before, ...rest] = await connection.queries(server.byFile ? [end, COMMITTING, BEGIN, end] : [end, BEGIN, end])
  const after = rest.at(-1)!
  const isStill = !server.byFile || committing(rest[0]!).length === 0
  if (isStill && JSON.stringify(before) === JSON.stringify(after)) return server.byFile ? endMark(after) : BigInt(GtidSet.parse(after[0]![4]!).size)
  await connection.query('rollback')
  return null
}
