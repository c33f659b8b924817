const MASK = 0xffff_ffff_ffff_ffffn
const C1 = 0x87c3_7b91_1142_53d5n
const C2 = 0x4cf5_ad43_2745_937fn

const rotate = (value: bigint, by: bigint) => ((value << by) | (value >> (64n - by))) & MASK

function mix(value: bigint): bigint {
  let k = value
  k ^= k >> 33n
  k = (k * 0xff51_afd7_ed55_8ccdn) & MASK
  k ^= k >> 33n
  k = (k * 0xc4ce_b9fe_1a85_ec53n) & MASK
  return k ^ (k >> 33n)
}

/** The token of a serialized partition key under Murmur3Partitioner: org.apache.cassandra.utils.MurmurHash, whose last bytes are signed. */
export function tokenOf(key: Buffer): bigint {
  let h1 = 0n
  let h2 = 0n
  const blocks = key.length >> 4
  for (let i = 0; i < blocks; i++) {
    const k1 = (rotate((key.readBigUInt64LE(16 * i) * C1) & MASK, 31n) * C2) & MASK
    const k2 = (rotate((key.readBigUInt64LE(16 * i + 8) * C2) & MASK, 33n) * C1) & MASK
    h1 = ((rotate(h1 ^ k1, 27n) + h2) * 5n + 0x52dc_e729n) & MASK
    h2 = ((rotate(h2 ^ k2, 31n) + h1) * 5n + 0x3849_5ab5n) & MASK
  }
  let k1 = 0n
  let k2 = 0n
  for (let i = (key.length & 15) - 1; i >= 0; i--) {
    const byte = BigInt(key.readInt8(16 * blocks + i)) & MASK
    if (i >= 8) k2 ^= (byte << BigInt(8 * (i - 8))) & MASK
    else k1 ^= (byte << BigInt(8 * i)) & MASK
  }
  if ((key.length & 15) > 8) h2 ^= (rotate((k2 * C2) & MASK, 33n) * C1) & MASK
  if ((key.length & 15) > 0) h1 ^= (rotate((k1 * C1) & MASK, 31n) * C2) & MASK
  const length = BigInt(key.length)
  h1 = ((h1 ^ length) + (h2 ^ length)) & MASK
  h2 = ((h2 ^ length) + h1) & MASK
  const token = BigInt.asIntN(64, (mix(h1) + mix(h2)) & MASK)
  // the least is no token
  return token === -(2n ** 63n) ? 2n ** 63n - 1n : token
}
