import { WireReader, WireWriter } from './wire.ts'

export const SASL_HANDSHAKE = 17
export const SASL_AUTHENTICATE = 36
/** Of both: Kafka 2.2 to 4.x; not flexible. */
const VERSION = 1

/** A fresh connection, as SASL uses it. */
export interface SaslConnection {
  /** See `BrokerConnection.request`. */
  request(apiKey: number, apiVersion: number, parts: readonly Buffer[]): Promise<Buffer>
}

/**
 * Chooses the mechanism. Format: kafka.apache.org/protocol, SaslHandshake version 1.
 * @returns Kafka's error code, and the mechanisms that the broker offers
 * @throws KafkaFault for an answer that ends too early
 */
export async function saslHandshake(
  connection: SaslConnection,
  mechanism: string,
): Promise<{ readonly errorCode: number; readonly mechanisms: readonly string[] }> {
  const reader = new WireReader(await connection.request(SASL_HANDSHAKE, VERSION, new WireWriter().string(mechanism).parts()))
  const errorCode = reader.int16()
  const mechanisms: string[] = []
  for (const _ of reader.array()) mechanisms.push(reader.string() ?? '')
  return { errorCode, mechanisms }
}

export interface SaslAnswer {
  /** Kafka's error code; only with 0 are there bytes. */
  readonly errorCode: number
  readonly message: string | null
  readonly bytes: Buffer
  /** How long the session lives in milliseconds, 0 for ever. */
  readonly sessionLifetimeMs: number
}

/** One step of the mechanism. Format: kafka.apache.org/protocol, SaslAuthenticate version 1. @throws KafkaFault as above */
export async function saslAuthenticate(connection: SaslConnection, bytes: Buffer): Promise<SaslAnswer> {
  const reader = new WireReader(await connection.request(SASL_AUTHENTICATE, VERSION, new WireWriter().int32(bytes.length).raw(bytes).parts()))
  return { errorCode: reader.int16(), message: reader.string(), bytes: reader.nullableBytes(), sessionLifetimeMs: Number(reader.int64()) }
}
