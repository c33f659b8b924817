import { MillraceError } from '../../core/plugin.ts'

/** A place in the binlog files of one server, between two transactions. */
export interface BinlogPlace {
  readonly file: string
  readonly position: number
  /** When the server began the file, in seconds since epoch: after a reset there are other files of the same names. */
  readonly created: number
}

const POSITION_BITS = 36n
const MOST_POSITION = 2 ** 36
const MOST_FILE = 2 ** 27

/** The numbers of a place, in one of 63 bits: file names end with a rising number, which at a file every five minutes fits for a thousand years. */
export function fileMark(file: string, position: number): bigint {
  const index = Number(/\.(\d+)$/.exec(file)?.[1] ?? Number.NaN)
  if (!(index < MOST_FILE && position >= 0 && position < MOST_POSITION)) {
    throw new MillraceError('source.protocol', `${file}:${position} is no place in a binlog whose files have numbers below ${MOST_FILE} and less than 64 GB`, {
      fix: 'begin new ones: RESET BINARY LOGS AND GTIDS (MariaDB: RESET MASTER), and read the tables anew: `millrace run FILE --resnapshot NODE`',
    })
  }
  return (BigInt(index) << POSITION_BITS) | BigInt(position)
}

/** As `file:position:created`. */
export function placeText({ file, position, created }: BinlogPlace): string {
  return `${file}:${position}:${created}`
}

/** @returns null: the text is not of {@link placeText} */
export function readPlace(text: string): BinlogPlace | null {
  const match = /^(.+\.\d+):(\d+):(\d+)$/.exec(text)
  return match === null ? null : { file: match[1]!, position: Number(match[2]), created: Number(match[3]) }
}
