import type { BrokerConnection } from './broker-connection.ts'
import { faultId } from './error-names.ts'
import { checkCode } from './kafka-fault.ts'
import { WireReader, WireWriter } from './wire.ts'

const FETCH = 1
/** Kafka 2.3 to 4.x; the last version that is not flexible. */
const VERSION = 11
const NO_SESSION = -1

export interface FetchLimits {
  readonly committedOnly: boolean
  /** How long the broker may wait for `minBytes`, milliseconds. */
  readonly waitMs: number
  readonly maxBytes: number
  readonly partitionMaxBytes: number
}

export interface FetchedPartition {
  readonly topic: string
  readonly partition: number
  /** Kafka's name of the failure, or null. */
  readonly fault: string | null
  readonly highWatermark: bigint
  readonly lastStableOffset: bigint
  readonly startOffset: bigint
  /** Transactions in this range that were aborted; empty unless `committedOnly`. */
  readonly aborted: readonly { readonly producerId: bigint; readonly firstOffset: bigint }[]
  /** Frames one after the other; the last may be cut short. A slice of the response. */
  readonly frames: Buffer
}

/** Frames of several partitions of one leader. Format: kafka.apache.org/protocol, Fetch version 11. @throws KafkaFault for an error of the whole request */
export async function fetchFrames(
  connection: BrokerConnection,
  positions: readonly { readonly topic: string; readonly partition: number; readonly offset: bigint }[],
  limits: FetchLimits,
): Promise<readonly FetchedPartition[]> {
  const writer = new WireWriter()
  writer.int32(-1).int32(limits.waitMs).int32(1).int32(limits.maxBytes)
  writer
    .int8(limits.committedOnly ? 1 : 0)
    .int32(0)
    .int32(NO_SESSION)
  const byTopic = Map.groupBy(positions, (position) => position.topic)
  writer.int32(byTopic.size)
  for (const [topic, list] of byTopic) {
    writer.string(topic).int32(list.length)
    for (const { partition, offset } of list) writer.int32(partition).int32(-1).int64(offset).int64(-1n).int32(limits.partitionMaxBytes)
  }
  writer.int32(0).string('')
  const reader = new WireReader(await connection.request(FETCH, VERSION, writer.parts()))
  reader.int32() // throttle time
  checkCode(reader.int16(), 'fetch')
  reader.int32() // session
  const found: FetchedPartition[] = []
  for (const _ of reader.array()) {
    const topic = reader.string() ?? ''
    for (const _ of reader.array()) {
      const partition = reader.int32()
      const fault = faultId(reader.int16())
      const highWatermark = reader.int64()
      const lastStableOffset = reader.int64()
      const startOffset = reader.int64()
      const aborted: { producerId: bigint; firstOffset: bigint }[] = []
      for (const _ of reader.array()) aborted.push({ producerId: reader.int64(), firstOffset: reader.int64() })
      reader.int32() // preferred read replica
      found.push({ topic, partition, fault, highWatermark, lastStableOffset, startOffset, aborted, frames: reader.nullableBytes() })
    }
  }
  return found
}
