import type { Json } from './offset.ts'

/** Prefix of a source's progress entries about the snapshot of its tables; followed by the table's id. */
export const SNAPSHOT_ENTRY = 'snapshot/'

/** To be read from its start, after a truncation: rows of an earlier capture may be gone from the source. */
export const UNREAD = { done: false, next: null, rows: 0, clear: true } as const

/** The durable state of a table's snapshot: where its next chunk starts, or that it is done. */
export type SnapshotProgress =
  | {
      readonly done: true
      readonly rows: number
      /**
       * The position of the last row of its last whole reading: rows at or before it whose update came before their chunk have come since. Absent when
       * nothing was read.
       */
      readonly at?: { readonly commit: string; readonly ordinal: number }
    }
  | {
      readonly done: false
      readonly next: Json
      readonly rows: number
      readonly clear?: true
      /** Only a part of the table is read, from `next` on: the others stay as they were at `at`. */
      readonly part?: true
      readonly at?: { readonly commit: string; readonly ordinal: number }
      /** Cursors at which parts of the table begin that are read after that. */
      readonly later?: readonly Json[]
    }
