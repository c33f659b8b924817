import { foreignOffset, type SourceOffset } from '../../core/plugin.ts'
import { GtidSet } from './gtid-set.ts'
import type { Flavor } from './server.ts'

/** Which transactions were captured: a GTID set of MySQL, or MariaDB's last GTID of each domain. */
export interface MysqlOffset {
  readonly flavor: Flavor
  readonly gtids: string
  /**
   * Some of them are of XA transactions that are prepared, and neither committed nor rolled back: their rows have to be streamed again. MySQL: the set of
   * those. MariaDB, whose positions have no gaps: the position before the first of them.
   */
  readonly prepared?: string
  /** Tables by id, see `DescribedAhead`; absent: there are none. */
  readonly ahead?: readonly string[]
}

/** Where the server has to begin. */
export function resumeGtids({ flavor, gtids, prepared }: MysqlOffset): string {
  if (prepared === undefined) return gtids
  return flavor === 'mysql' ? String(GtidSet.parse(gtids).without(GtidSet.parse(prepared))) : prepared
}

/** @throws source.identity_changed when this source did not write it */
export function readOffset(offset: SourceOffset): MysqlOffset {
  const { flavor, gtids, prepared, ahead } = offset as { flavor?: unknown; gtids?: unknown; prepared?: unknown; ahead?: unknown }
  if (
    (flavor !== 'mysql' && flavor !== 'mariadb') ||
    typeof gtids !== 'string' ||
    !(prepared === undefined || typeof prepared === 'string') ||
    !(ahead === undefined || Array.isArray(ahead))
  ) {
    throw foreignOffset('MySQL')
  }
  return { flavor, gtids, ...(prepared === undefined ? {} : { prepared }), ...(ahead === undefined ? {} : { ahead }) }
}

export function writeOffset({ flavor, gtids, prepared, ahead }: MysqlOffset): SourceOffset {
  return { flavor, gtids, ...(prepared === undefined ? {} : { prepared }), ...(ahead === undefined ? {} : { ahead }) }
}
