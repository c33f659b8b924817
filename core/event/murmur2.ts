/**
 * Kafka's default partitioner for keyed records: murmur2 with seed 0x9747b28c, sign bit dropped, modulo partitions.
 * Source: org.apache.kafka.common.utils.Utils.murmur2 and toPositive.
 */
const SEED = 0x9747b28c
const M = 0x5bd1e995

/** murmur2 of [from, to) as a signed 32-bit number, as Java computes it. */
export function murmur2(bytes: Uint8Array, from: number, to: number): number {
  const length = to - from
  const wholeEnd = from + (length & ~3)
  let h = SEED ^ length
  for (let at = from; at < wholeEnd; at += 4) {
    let k = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    k = Math.imul(k, M)
    k = Math.imul(k ^ (k >>> 24), M)
    h = Math.imul(h, M) ^ k
  }
  const rest = length & 3
  if (rest > 0) {
    if (rest === 3) h ^= bytes[wholeEnd + 2]! << 16
    if (rest >= 2) h ^= bytes[wholeEnd + 1]! << 8
    h = Math.imul(h ^ bytes[wholeEnd]!, M)
  }
  h = Math.imul(h ^ (h >>> 13), M)
  return h ^ (h >>> 15)
}

/** The partition of the key [from, to) among `partitions`, the same as every Java producer's. */
export function partitionOf(key: Uint8Array, from: number, to: number, partitions: number): number {
  return partitions === 1 ? 0 : (murmur2(key, from, to) & 0x7fffffff) % partitions
}
