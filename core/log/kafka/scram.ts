import { createHash, createHmac, pbkdf2, randomBytes, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import { KafkaFault } from './kafka-fault.ts'

const NONCE_BYTES = 24
const GS2_HEADER = 'n,,'
/** RFC 7677 asks for at least so many; fewer would let who sees the exchange guess passwords. */
const MIN_ITERATIONS = 4_096
/** About a second of work: a broker cannot keep us busy with more. */
const MAX_ITERATIONS = 1_000_000
/** Printable ASCII but the comma. */
const SERVER_FIRST = /^r=([\x21-\x2b\x2d-\x7e]+),s=([A-Za-z0-9+/]+={0,2}),i=(\d{1,9})(?:,|$)/
const SERVER_FINAL = /^v=([A-Za-z0-9+/]+={0,2})(?:,|$)/

const HASHES = {
  'SCRAM-SHA-256': { hash: 'sha256', bytes: 32 },
  'SCRAM-SHA-512': { hash: 'sha512', bytes: 64 },
} as const

const derive = promisify(pbkdf2)
const newNonce = (): string => randomBytes(NONCE_BYTES).toString('base64url')

/**
 * Proves to know the password, and has the server prove that it knows it as well. Source: RFC 5802 and 7677, without channel binding; as Kafka, without
 * SASLprep: names and passwords are their UTF-8 bytes.
 * @param exchange sends a message and gives the answer
 * @throws KafkaFault SASL_AUTHENTICATION_FAILED when the server's words are wrong, and what `exchange` throws
 */
export async function scram(
  mechanism: keyof typeof HASHES,
  { username, password }: { readonly username: string; readonly password: string },
  exchange: (message: string) => Promise<string>,
  nonce: string = newNonce(),
): Promise<void> {
  const { hash, bytes } = HASHES[mechanism]
  const hmac = (key: Buffer, text: string): Buffer => createHmac(hash, key).update(text).digest()

  const firstBare = `n=${username.replaceAll('=', '=3D').replaceAll(',', '=2C')},r=${nonce}`
  const serverFirst = await exchange(`${GS2_HEADER}${firstBare}`)
  const [, bothNonces, salt, iterationText] = SERVER_FIRST.exec(serverFirst) ?? []
  if (bothNonces === undefined || salt === undefined) throw wrong(`the broker's first ${mechanism} message cannot be read${reasonOf(serverFirst)}`)
  if (!bothNonces.startsWith(nonce) || bothNonces.length === nonce.length) throw wrong("the broker's nonce does not continue ours")
  const iterations = Number(iterationText)
  if (iterations < MIN_ITERATIONS || iterations > MAX_ITERATIONS) {
    throw wrong(`the broker asks for ${iterations} iterations; ${MIN_ITERATIONS} to ${MAX_ITERATIONS} are taken`)
  }

  const salted = await derive(Buffer.from(password), Buffer.from(salt, 'base64'), iterations, bytes, hash)
  const clientKey = hmac(salted, 'Client Key')
  const storedKey = createHash(hash).update(clientKey).digest()
  const withoutProof = `c=${Buffer.from(GS2_HEADER).toString('base64')},r=${bothNonces}`
  const spoken = `${firstBare},${serverFirst},${withoutProof}`
  const signature = hmac(storedKey, spoken)
  const proof = clientKey.map((byte, at) => byte ^ signature[at]!)

  const serverFinal = await exchange(`${withoutProof},p=${Buffer.from(proof).toString('base64')}`)
  const proven = Buffer.from(SERVER_FINAL.exec(serverFinal)?.[1] ?? '', 'base64')
  const expected = hmac(hmac(salted, 'Server Key'), spoken)
  if (proven.length === expected.length && timingSafeEqual(proven, expected)) return
  throw wrong(`the broker does not prove that it knows the password${reasonOf(serverFinal)}`)
}

const wrong = (message: string): KafkaFault => new KafkaFault('SASL_AUTHENTICATION_FAILED', message)

/** `e=` and one of the words of RFC 5802, 7. */
function reasonOf(message: string): string {
  const word = /^e=([a-z-]{1,60})(?:,|$)/.exec(message)?.[1]
  return word === undefined ? '' : `: ${word}`
}
