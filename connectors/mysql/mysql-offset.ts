import { MillraceError, type SourceOffset } from '../../core/plugin.ts'
import type { Flavor } from './server.ts'

/** Which transactions were captured: a GTID set of MySQL, or MariaDB's last GTID of each domain. */
export interface MysqlOffset {
  readonly flavor: Flavor
  readonly gtids: string
}

export function readOffset(offset: SourceOffset): MysqlOffset {
  const { flavor, gtids } = offset as { flavor?: unknown; gtids?: unknown }
  if ((flavor !== 'mysql' && flavor !== 'mariadb') || typeof gtids !== 'string') {
    throw new MillraceError('source.identity_changed', 'the progress of this node is not one of a MySQL source', {
      fix: 'give the source a name of its own, or read everything anew: `millrace run FILE --resnapshot NODE`',
    })
  }
  return { flavor, gtids }
}

export function writeOffset({ flavor, gtids }: MysqlOffset): SourceOffset {
  return { flavor, gtids }
}
