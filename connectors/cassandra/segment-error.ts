import { MillraceError } from '../../core/plugin.ts'

/** `offset`: the byte in the file, or in a compressed section the byte that it would be uncompressed. */
export function segmentError(what: string, file: string, offset: number, cause?: unknown): MillraceError {
  return new MillraceError('source.protocol', `commit log segment ${file}, offset ${offset}: ${what}`, {
    fix: 'nothing after this place was captured; keep a copy of the file, move it out of cdc_raw and read the tables anew: `millrace run FILE --resnapshot NODE`',
    cause,
  })
}
