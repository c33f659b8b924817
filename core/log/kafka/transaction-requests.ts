import type { BrokerConnection } from './broker-connection.ts'
import { WireReader, WireWriter } from './wire.ts'

const INIT_PRODUCER_ID = 22
/** Kafka 2.7 to 4.x; flexible, as all versions that take the epoch to be bumped. */
const INIT_PRODUCER_ID_VERSION = 4
const ADD_PARTITIONS_TO_TXN = 24
const END_TXN = 26
/** Of both: Kafka 2.7 to 4.x; the last version that is not flexible. */
const TXN_VERSION = 2

/** Who writes: the transactional id with its producer id and epoch, or -1 and -1 to be given new ones. */
export interface Producer {
  readonly transactionalId: string
  readonly id: bigint
  readonly epoch: number
}

/**
 * The next epoch of a transactional id; what was open is aborted. Format: kafka.apache.org/protocol, InitProducerId version 4.
 * @param timeoutMs how long its transactions may stay open
 * @returns Kafka's error code; only with 0 are the others right
 * @throws KafkaFault for an answer that ends too early
 */
export async function initProducerId(
  connection: BrokerConnection,
  producer: Producer,
  timeoutMs: number,
): Promise<{ readonly errorCode: number; readonly id: bigint; readonly epoch: number }> {
  const writer = new WireWriter().compactString(producer.transactionalId).int32(timeoutMs).int64(producer.id).int16(producer.epoch).noTaggedFields()
  const reader = new WireReader(await connection.request(INIT_PRODUCER_ID, INIT_PRODUCER_ID_VERSION, writer.parts(), true))
  reader.skipTaggedFields() // of the header
  reader.int32() // throttle time
  const answer = { errorCode: reader.int16(), id: reader.int64(), epoch: reader.int16() }
  reader.skipTaggedFields()
  return answer
}

export interface AddedPartition {
  readonly topic: string
  readonly partition: number
  /** Kafka's error code. When one partition fails none is added; the others say OPERATION_NOT_ATTEMPTED. */
  readonly errorCode: number
}

/** Makes partitions part of the open transaction, or opens one. Format: kafka.apache.org/protocol, AddPartitionsToTxn version 2. @throws KafkaFault as above */
export async function addPartitionsToTxn(
  connection: BrokerConnection,
  producer: Producer,
  partitions: readonly { readonly topic: string; readonly partition: number }[],
): Promise<readonly AddedPartition[]> {
  const byTopic = Map.groupBy(partitions, ({ topic }) => topic)
  const writer = new WireWriter().string(producer.transactionalId).int64(producer.id).int16(producer.epoch).int32(byTopic.size)
  for (const [topic, list] of byTopic) writer.string(topic).int32s(list.map(({ partition }) => partition))
  const reader = new WireReader(await connection.request(ADD_PARTITIONS_TO_TXN, TXN_VERSION, writer.parts()))
  reader.int32() // throttle time
  const added: AddedPartition[] = []
  for (const _ of reader.array()) {
    const topic = reader.string() ?? ''
    for (const _ of reader.array()) added.push({ topic, partition: reader.int32(), errorCode: reader.int16() })
  }
  return added
}

/** Commits or aborts. Format: kafka.apache.org/protocol, EndTxn version 2. @returns Kafka's error code @throws KafkaFault as above */
export async function endTxn(connection: BrokerConnection, producer: Producer, commit: boolean): Promise<number> {
  const writer = new WireWriter().string(producer.transactionalId).int64(producer.id).int16(producer.epoch).boolean(commit)
  const reader = new WireReader(await connection.request(END_TXN, TXN_VERSION, writer.parts()))
  reader.int32() // throttle time
  return reader.int16()
}
