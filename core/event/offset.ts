export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** A source's resume point after a complete transaction, as JSON that the source wrote and only the source reads. */
export type SourceOffset = { readonly [key: string]: Json }
