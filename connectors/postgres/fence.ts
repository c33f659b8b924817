import type { PostgresFence } from './snapshot-reader.ts'

const PAGE_BYTES = 8192n
/** A WAL page starts with a header of 24 or, in a segment's first page, 40 bytes. */
const LONGEST_PAGE_HEADER_BYTES = 40n

/** Whether the snapshot sees what transaction `xid` (32 bits, as on the wire) committed. */
export function sees(fence: PostgresFence, xid: number): boolean {
  const full = fullXid(fence.xmax, xid)
  if (full < fence.xmin) return true
  return full < fence.xmax && !fence.inProgress.has(full)
}

/** Whether the stream, complete up to `lsn`, holds everything that the snapshot sees. */
export function hasReached(fence: PostgresFence, lsn: bigint): boolean {
  // The insert LSN just after a page's header can exceed the end of the last record, which is all that the server ever reports.
  const inPage = fence.lsn % PAGE_BYTES
  return lsn >= (inPage <= LONGEST_PAGE_HEADER_BYTES ? fence.lsn - inPage : fence.lsn)
}

/** The 64-bit transaction id nearest to `near` whose low 32 bits are `xid`. */
export function fullXid(near: bigint, xid: number): bigint {
  const candidate = (near & ~0xffff_ffffn) | BigInt(xid)
  if (candidate - near > 0x8000_0000n) return candidate - 0x1_0000_0000n
  if (near - candidate > 0x8000_0000n) return candidate + 0x1_0000_0000n
  return candidate
}
