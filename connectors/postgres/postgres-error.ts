import { MillraceError } from '../../core/plugin.ts'

/** What `pg` throws for an ErrorResponse, and what this connector reads from one itself. */
export interface ServerError {
  readonly code: string
  readonly message: string
}

const NETWORK = new Set(['ECONNREFUSED', 'ECONNRESET', 'ENOTFOUND', 'ETIMEDOUT', 'EPIPE', 'EHOSTUNREACH', 'ENETUNREACH', 'EAI_AGAIN', 'ECONNABORTED'])

/**
 * Classifies what went wrong while talking to Postgres: by SQLSTATE and errno, never by message text.
 * `doing` says what was tried: `to create the slot x`.
 */
export function postgresError(error: unknown, doing: string): MillraceError {
  if (error instanceof MillraceError) return error
  const cause = error instanceof Error ? error : new Error(String(error))
  const code = (cause as NodeJS.ErrnoException).code ?? ''
  if (code === 'ERR_INVALID_URL' || cause instanceof URIError) {
    return new MillraceError('config.invalid', 'the `url` of the source cannot be read', {
      fix: 'write postgres://user:password@host:port/database, and what is special in user and password as %XX: a % itself is %25, @ is %40, / is %2F',
    })
  }
  const text = cause.message === '' ? code : cause.message
  const failure = `Postgres failed ${doing}: ${text}${/^[0-9A-Z]{5}$/.test(code) ? ` (SQLSTATE ${code})` : ''}`
  if (!/^[0-9A-Z]{5}$/.test(code) || NETWORK.has(code)) {
    const tls = code.startsWith('ERR_TLS') || code.startsWith('ERR_SSL') || code.includes('CERT') || code === 'DEPTH_ZERO_SELF_SIGNED_CERT'
    if (tls) return new MillraceError('source.forbidden', failure, { fix: 'check `ssl` of the source: its ca and servername must match the server', cause })
    return new MillraceError('source.unreachable', failure, { fix: 'check host, port and that the server runs', cause })
  }
  switch (code) {
    case '42501':
      return new MillraceError('source.forbidden', failure, { fix: 'run `millrace check`: it prints the missing GRANT or ALTER ROLE', cause })
    case '55006':
      return new MillraceError('source.in_use', failure, { fix: 'stop the other process that reads this slot', cause })
    case '3D000':
      return new MillraceError('source.unprepared', failure, { fix: 'create the database or correct its name in the source', cause })
    case '55P03':
      return new MillraceError('source.unreachable', failure, { cause })
  }
  switch (code.slice(0, 2)) {
    case '28':
      return new MillraceError('source.forbidden', failure, { fix: 'check user, password and pg_hba.conf', cause })
    case '08':
    case '40':
    case '53':
    case '57':
    case '58':
    case 'XX':
      return new MillraceError('source.unreachable', failure, { cause })
    default:
      return new MillraceError('source.unprepared', failure, { fix: 'run `millrace check`: it names what the database lacks', cause })
  }
}

/** The fields of an ErrorResponse or NoticeResponse at [at, end). */
export function readServerError(bytes: Buffer, at: number, end: number): Error & ServerError {
  let code = ''
  let message = ''
  while (at < end && bytes[at] !== 0) {
    const field = bytes[at]!
    let to = at + 1
    while (to < end && bytes[to] !== 0) to++
    if (field === 67) code = bytes.toString('latin1', at + 1, to)
    else if (field === 77) message = bytes.toString('utf8', at + 1, to)
    at = to + 1
  }
  return Object.assign(new Error(message), { code })
}
