import { foreignOffset, invariant, MillraceError, type SourceOffset } from '../../core/plugin.ts'
import { type BinlogPlace, fileMark, placeText, readPlace } from './binlog-place.ts'
import { GtidSet, MariadbPosition } from './gtid-set.ts'
import { type Flavor, type Server, SWITCH_ON } from './server.ts'

interface Unfinished {
  /**
   * Some of the captured transactions are XA transactions that are prepared, and neither committed nor rolled back: their rows have to be streamed again. MySQL
   * by GTID: the set of those. Else, since positions have no gaps: the position before the first of them.
   */
  readonly prepared?: string | undefined
  /** Tables by id, see `DescribedAhead`; absent: there are none. */
  readonly ahead?: readonly string[] | undefined
}

/** Which transactions were captured: a GTID set of MySQL, or MariaDB's last GTID of each domain. */
export interface GtidOffset extends Unfinished {
  readonly flavor: Flavor
  readonly gtids: string
}

/** Up to where transactions were captured, of a server of MySQL that gives them no GTIDs: a place in its own files, which says nothing about another server's. */
export interface FileOffset extends Unfinished, BinlogPlace {
  readonly flavor: 'mysql'
  /** `server_uuid` */
  readonly server: string
}

export type MysqlOffset = GtidOffset | FileOffset

export function isByFile(offset: MysqlOffset): offset is FileOffset {
  return 'file' in offset
}

/** Where the server has to begin. */
export function resumeGtids({ flavor, gtids, prepared }: GtidOffset): string {
  if (prepared === undefined) return gtids
  return flavor === 'mysql' ? String(GtidSet.parse(gtids).without(GtidSet.parse(prepared))) : prepared
}

/** The same without GTIDs. */
export function resumePlace(offset: FileOffset): BinlogPlace {
  if (offset.prepared === undefined) return offset
  const place = readPlace(offset.prepared)
  invariant(place !== null, 'an offset was read')
  return place
}

/** The commit number that all transactions up to there have at most, and those after it exceed. */
export function lastCommit(offset: MysqlOffset): bigint {
  if (isByFile(offset)) return fileMark(offset.file, offset.position)
  return BigInt(offset.flavor === 'mysql' ? GtidSet.parse(offset.gtids).size : MariadbPosition.parse(offset.gtids).sum)
}

export function isSameOffset(one: MysqlOffset, other: MysqlOffset): boolean {
  const place = (offset: MysqlOffset) => (isByFile(offset) ? placeText(offset) : offset.gtids)
  return place(one) === place(other) && one.prepared === other.prepared && one.ahead?.join() === other.ahead?.join()
}

/** @throws source.history_lost when transactions are known by other names than those of the offset, source.identity_changed when the server is of another product */
export function requireForm(offset: MysqlOffset, { flavor, versionText, gtidMode, byFile }: Server, node: string): void {
  const fix = `read the tables anew: \`millrace run FILE --resnapshot ${node}\``
  if (offset.flavor !== flavor)
    throw new MillraceError('source.identity_changed', `the server is ${versionText}, and the progress is of another product`, { fix })
  if (isByFile(offset) === byFile) return
  const captured = isByFile(offset) ? `by file, up to ${offset.file}:${offset.position}` : `by GTID, up to ${offset.gtids}`
  throw new MillraceError('source.history_lost', `the progress is ${captured}, and gtid_mode is ${gtidMode} now: which transactions follow cannot be told`, {
    fix: byFile
      ? `when nothing was written without a GTID since: ${SWITCH_ON}; else ${fix}`
      : `go on by file with SET GLOBAL gtid_mode = ON_PERMISSIVE; or, from now on by GTID, ${fix}`,
  })
}

/** @throws source.identity_changed when this source did not write it */
export function readOffset(offset: SourceOffset): MysqlOffset {
  const { flavor, gtids, server, file, position, created, prepared, ahead } = offset as Readonly<Record<string, unknown>>
  const isText = (value: unknown) => value === undefined || typeof value === 'string'
  if (!isText(prepared) || !(ahead === undefined || Array.isArray(ahead))) throw foreignOffset('MySQL')
  const unfinished = { prepared, ahead } as Unfinished
  if ((flavor === 'mysql' || flavor === 'mariadb') && typeof gtids === 'string') return written({ flavor, gtids, ...unfinished })
  const isPlace = typeof file === 'string' && Number.isSafeInteger(position) && Number.isSafeInteger(created)
  if (flavor !== 'mysql' || typeof server !== 'string' || !isPlace || (prepared !== undefined && readPlace(prepared as string) === null)) {
    throw foreignOffset('MySQL')
  }
  return written({ flavor, server, file, position: position as number, created: created as number, ...unfinished })
}

export function writeOffset(offset: MysqlOffset): SourceOffset {
  return written(offset) as unknown as SourceOffset
}

/** Without what is not there. */
function written(offset: MysqlOffset): MysqlOffset {
  const { prepared, ahead, ...place } = offset
  return { ...place, ...(prepared === undefined ? {} : { prepared }), ...(ahead === undefined ? {} : { ahead }) } as MysqlOffset
}
