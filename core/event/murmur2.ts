/** Java's murmur2 and Kafka's default partitioner (org.apache.kafka.common.utils.Utils#murmur2): keys land where every other client puts them. */

const M = 0x5bd1_e995

/** Signed 32-bit hash of bytes [from, to). */
export function murmur2(bytes: Uint8Array, from: number, to: number): number {
  let remaining = to - from
  let h = 0x9747_b28c ^ remaining
  let at = from
  while (remaining >= 4) {
    let k = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    k = Math.imul(k, M)
    k ^= k >>> 24
    k = Math.imul(k, M)
    h = Math.imul(h, M) ^ k
    at += 4
    remaining -= 4
  }
  if (remaining === 3) h ^= bytes[at + 2]! << 16
  if (remaining >= 2) h ^= bytes[at + 1]! << 8
  if (remaining >= 1) {
    h ^= bytes[at]!
    h = Math.imul(h, M)
  }
  h ^= h >>> 13
  h = Math.imul(h, M)
  return h ^ (h >>> 15)
}

/** The partition of a non-null key, as Java clients choose it. */
export function partitionOf(key: Uint8Array, from: number, to: number, partitions: number): number {
  return (murmur2(key, from, to) & 0x7fff_ffff) % partitions
}
