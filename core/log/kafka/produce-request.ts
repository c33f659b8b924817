import type { BrokerConnection } from './broker-connection.ts'
import { WireReader, WireWriter } from './wire.ts'

const PRODUCE = 0
/** Kafka 2.4 to 4.x; the last version that is not flexible. */
const VERSION = 8
const ALL_REPLICAS = -1
const BROKER_TIMEOUT_MS = 25_000

export interface ProducePart {
  readonly topic: string
  readonly partition: number
  /** One whole frame, as one or more pieces. */
  readonly pieces: readonly Buffer[]
}

export interface ProduceResult {
  readonly topic: string
  readonly partition: number
  /** Kafka's error code, 0 when it landed. */
  readonly errorCode: number
  readonly message: string | null
  readonly baseOffset: bigint
}

/**
 * Produces finished frames, at most one per partition, acknowledged by all in-sync replicas.
 * Format: kafka.apache.org/protocol, Produce version 8.
 */
export async function produce(connection: BrokerConnection, transactionalId: string | null, parts: readonly ProducePart[]): Promise<readonly ProduceResult[]> {
  const byTopic = Map.groupBy(parts, (part) => part.topic)
  const writer = new WireWriter().string(transactionalId).int16(ALL_REPLICAS).int32(BROKER_TIMEOUT_MS).int32(byTopic.size)
  for (const [topic, list] of byTopic) {
    writer.string(topic).int32(list.length)
    for (const { partition, pieces } of list) {
      writer.int32(partition).int32(pieces.reduce((n, piece) => n + piece.length, 0))
      for (const piece of pieces) writer.raw(piece)
    }
  }
  const reader = new WireReader(await connection.request(PRODUCE, VERSION, writer.parts()))
  const results: ProduceResult[] = []
  for (const _ of reader.array()) {
    const topic = reader.string() ?? ''
    for (const _ of reader.array()) {
      const partition = reader.int32()
      const errorCode = reader.int16()
      const baseOffset = reader.int64()
      reader.int64() // log append time
      reader.int64() // log start offset
      let recordMessage: string | null = null
      for (const _ of reader.array()) {
        reader.int32() // index of the record
        recordMessage = reader.string() ?? recordMessage
      }
      const message = reader.string() ?? recordMessage
      results.push({ topic, partition, errorCode, message, baseOffset })
    }
  }
  reader.int32() // throttle time
  return results
}
