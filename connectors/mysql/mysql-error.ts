import { MillraceError } from '../../core/plugin.ts'
import type { BinlogPlace } from './binlog-place.ts'

/** An ERR packet. */
export class ServerError extends Error {
  readonly errno: number
  readonly sqlState: string

  constructor(errno: number, sqlState: string, message: string) {
    super(message)
    this.errno = errno
    this.sqlState = sqlState
  }
}

/** Access denied in its kinds: login, database, table, column, privilege. */
const FORBIDDEN = new Set([1044, 1045, 1130, 1142, 1143, 1227, 1251, 1370, 1698, 3118, 1820, 4151])
/** Too many connections, shutdown, killed, lock wait and deadlock, read-only for a moment, out of resources. */
const PASSING = new Set([1040, 1041, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1203, 1205, 1213, 1226, 1317, 1927, 3024, 3169, 4031])

/**
 * Classifies what went wrong while talking to the server, by its error number or errno. `doing` says what was tried: `to list the tables`.
 */
export function mysqlError(error: unknown, doing: string): MillraceError {
  if (error instanceof MillraceError) return error
  const cause = error instanceof Error ? error : new Error(String(error))
  const { errno, code = '' } = cause as { errno?: unknown; code?: string }
  const number = typeof errno === 'number' && errno > 0 ? errno : null
  const text = cause.message === '' ? code : cause.message
  const failure = `the server failed ${doing}: ${text}${number === null ? '' : ` (error ${number})`}`
  if (number === null) {
    // mysql2 gives every failure of the TLS handshake one code, also that of a network which is cut
    const isCut = 'syscall' in cause || /socket disconnected before/.test(cause.message)
    if (!isCut && /CERT|TLS|SSL|SELF_SIGNED|HANDSHAKE_NO_SSL|HANDSHAKE_SSL/.test(code)) {
      return new MillraceError('source.forbidden', failure, { fix: 'check `ssl` of the source: its ca must match the server', cause })
    }
    if (code === 'AUTH_SWITCH_PLUGIN_ERROR' || code === 'MYSQL_CLEAR_PASSWORD_NOT_ENABLED') {
      return new MillraceError('source.forbidden', failure, {
        fix: 'log in as a user with caching_sha2_password, ed25519 (MariaDB) or mysql_native_password',
        cause,
      })
    }
    return new MillraceError('source.unreachable', failure, { fix: 'check host, port and that the server runs', cause })
  }
  if (FORBIDDEN.has(number)) return new MillraceError('source.forbidden', failure, { fix: 'run `millrace check`: it prints the missing GRANT', cause })
  if (PASSING.has(number)) return new MillraceError('source.unreachable', failure, { cause })
  return new MillraceError('source.unprepared', failure, { fix: 'run `millrace check`: it names what the server lacks', cause })
}

export function protocolError(what: string, place: string, cause?: unknown): MillraceError {
  return new MillraceError('source.protocol', `${what} at ${place}`, {
    fix: 'nothing after this place was captured; if `mysqlbinlog` reads it, report this with the server version, else read the tables anew: `millrace run FILE --resnapshot NODE`',
    cause,
  })
}

export function historyLost(what: string, node: string, cause?: unknown): MillraceError {
  return new MillraceError('source.history_lost', what, {
    fix: `read the tables anew: \`millrace run FILE --resnapshot ${node}\`; or bring the missing binlogs or the former server back and start again`,
    cause,
  })
}

/** @param what was captured and is not there */
export function identityChanged(what: string, node: string, cause?: unknown): MillraceError {
  return new MillraceError(
    'source.identity_changed',
    `the server does not have the captured transactions ${what}: it is another one, or lost them in a failover`,
    {
      fix: `point the source at the server that has them, or read the tables anew: \`millrace run FILE --resnapshot ${node}\``,
      cause,
    },
  )
}

/** Another file has the name of the one that was captured up to this place. */
export function filesReplaced({ file, position, created }: BinlogPlace, now: number, node: string): MillraceError {
  const at = (seconds: number) => new Date(seconds * 1000).toISOString()
  return historyLost(
    `${file} was captured up to position ${position} when it had been begun at ${at(created)}, and the server has another of that name from ${at(now)}: its binlogs were reset, or it is a copy that was restored; what was committed between is not known`,
    node,
  )
}

/** What the server answers instead of its binlog. */
export function streamError(error: ServerError, node: string): MillraceError {
  // of MySQL it has no number of its own, and of MariaDB another
  if (/same server_(uuid|id)/.test(error.message)) {
    return new MillraceError('source.in_use', `another process streams as this node: ${error.message}`, {
      fix: 'stop the other process of this node, or give the source another `serverId`',
      cause: error,
    })
  }
  if (error.errno !== 1236) return mysqlError(error, 'while streaming')
  // MariaDB's word for a place that its binlog never came to; what was purged it names otherwise
  const foreign = /requested to start from GTID (\S+), which is not in the master's binlog/.exec(error.message)
  if (foreign !== null) return identityChanged(foreign[1]!, node, error)
  return historyLost(`the server cannot stream from where this node was: ${error.message}`, node, error)
}
