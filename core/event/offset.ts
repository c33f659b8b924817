import { MillraceError } from '../errors.ts'

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** A source's resume point after a complete transaction, as JSON that the source wrote and only the source reads. */
export type SourceOffset = { readonly [key: string]: Json }

/** What a source throws when it is given an offset that it cannot have written. @param source as users call it: `MySQL` */
export function foreignOffset(source: string): MillraceError {
  return new MillraceError('source.identity_changed', `the progress of this node is not one of a ${source} source`, {
    fix: 'give the source a name of its own, or read everything anew: `millrace run FILE --resnapshot NODE`',
  })
}
