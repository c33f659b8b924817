import { createHash } from 'node:crypto'

/** Prime of the field, order of the base point, and the curve's constant d. RFC 8032, 5.1. */
const P = 2n ** 255n - 19n
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n
const D = mod(-121665n * power(121666n, P - 2n))

/** A point (x, y) as (X : Y : Z : T), where x = X/Z, y = Y/Z and xy = T/Z. */
type Point = readonly [x: bigint, y: bigint, z: bigint, t: bigint]

const ZERO: Point = [0n, 1n, 1n, 0n]
const BASE_X = 15112221349535400772501151409588531511454012693041857206046113283949847762202n
const BASE_Y = mod(4n * power(5n, P - 2n))
const BASE: Point = [BASE_X, BASE_Y, 1n, mod(BASE_X * BASE_Y)]

/**
 * Signs as Ed25519 does, with a secret of any length, which MariaDB's `ed25519` logs in with: the password is the secret, where RFC 8032 and node:crypto
 * know 32 random bytes only. Not in constant time: for logging in, where a signature is made once per connection and waits for the network.
 * @returns 64 bytes
 */
export function signEd25519(secret: Uint8Array, message: Uint8Array): Buffer {
  const digest = sha512(secret)
  digest[0]! &= 248
  digest[31]! = (digest[31]! & 63) | 64
  const scalar = integer(digest.subarray(0, 32))
  const publicKey = encode(multiply(scalar))
  const once = integer(sha512(digest.subarray(32), message)) % ORDER
  const commitment = encode(multiply(once))
  const challenge = integer(sha512(commitment, publicKey, message)) % ORDER
  return Buffer.concat([commitment, littleEndian((once + challenge * scalar) % ORDER)])
}

function sha512(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha512')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

function mod(value: bigint): bigint {
  const rest = value % P
  return rest < 0n ? rest + P : rest
}

function power(base: bigint, exponent: bigint): bigint {
  let result = 1n
  for (let square = mod(base), rest = exponent; rest > 0n; rest >>= 1n, square = mod(square * square)) if (rest & 1n) result = mod(result * square)
  return result
}

/** The unified addition of RFC 8032, 5.1.4, which doubles as well. */
function add([x1, y1, z1, t1]: Point, [x2, y2, z2, t2]: Point): Point {
  const a = mod((y1 - x1) * (y2 - x2))
  const b = mod((y1 + x1) * (y2 + x2))
  const c = mod(2n * D * t1 * t2)
  const d = mod(2n * z1 * z2)
  const [e, f, g, h] = [b - a, d - c, d + c, b + a]
  return [mod(e * f), mod(g * h), mod(f * g), mod(e * h)]
}

/** The base point so many times; adds in every step, whatever the bit, so that the time does not count the bits. */
function multiply(scalar: bigint): Point {
  let sum = ZERO
  for (let bit = 255n; bit >= 0n; bit--) {
    const doubled = add(sum, sum)
    const more = add(doubled, BASE)
    sum = (scalar >> bit) & 1n ? more : doubled
  }
  return sum
}

function encode([x, y, z]: Point): Buffer {
  const inverse = power(z, P - 2n)
  const bytes = littleEndian(mod(y * inverse))
  bytes[31]! |= Number(mod(x * inverse) & 1n) << 7
  return bytes
}

function integer(bytes: Uint8Array): bigint {
  return BigInt(`0x${Buffer.from(bytes).reverse().toString('hex')}`)
}

function littleEndian(value: bigint): Buffer {
  return Buffer.from(value.toString(16).padStart(64, '0'), 'hex').reverse()
}
