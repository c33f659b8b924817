import { FRAME_HEADER_BYTES, type FrameRecord, records, stampChecksum } from '../../event/record-batch.ts'

/**
 * The frame with those records only that `keep` holds on to, with their offsets and timestamps unchanged, and its last offset too, as Kafka's
 * cleaner does it; null when none is left, the frame itself when all are.
 */
export function compactFrame(frame: Buffer, keep: (record: FrameRecord) => boolean): { readonly frame: Buffer; readonly count: number } | null {
  const parts: Buffer[] = [Buffer.from(frame.subarray(0, FRAME_HEADER_BYTES))]
  let count = 0
  let total = 0
  let from = FRAME_HEADER_BYTES
  for (const record of records(frame)) {
    total++
    if (keep(record)) {
      parts.push(frame.subarray(from, record.end))
      count++
    }
    from = record.end
  }
  if (count === 0) return null
  if (count === total) return { frame, count }
  const compacted = Buffer.concat(parts)
  compacted.writeInt32BE(compacted.length - 12, 8)
  compacted.writeInt32BE(count, 57)
  stampChecksum(compacted, compacted.length)
  return { frame: compacted, count }
}
