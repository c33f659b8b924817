import type { BrokerConnection } from './broker-connection.ts'
import { WireReader, WireWriter } from './wire.ts'

const LIST_OFFSETS = 2
/** Kafka 2.2 to 4.x; the last version that is not flexible. */
const LIST_OFFSETS_VERSION = 5
const CREATE_TOPICS = 19
/** Kafka 2.4 to 4.x; the last version that is not flexible. */
const CREATE_TOPICS_VERSION = 4
const DESCRIBE_CONFIGS = 32
/** Kafka 2.6 to 4.x; the last version that is not flexible. */
const DESCRIBE_CONFIGS_VERSION = 3
const OF_TOPIC = 2

export interface NewTopic {
  readonly topic: string
  readonly partitions: number
  /** -1 takes the cluster's default. */
  readonly replicationFactor: number
  readonly config: Readonly<Record<string, string>>
}

/** What became of one topic of a request. */
export interface TopicOutcome {
  readonly topic: string
  /** Kafka's error code, 0 when all went well. */
  readonly errorCode: number
  readonly message: string | null
}

/**
 * Makes topics. Format: kafka.apache.org/protocol, CreateTopics version 4.
 * @param timeoutMs how long the broker waits for the others to know of them
 * @throws KafkaFault for an answer that ends too early
 */
export async function createTopics(connection: BrokerConnection, topics: readonly NewTopic[], timeoutMs: number): Promise<readonly TopicOutcome[]> {
  const writer = new WireWriter().int32(topics.length)
  for (const { topic, partitions, replicationFactor, config } of topics) {
    const settings = Object.entries(config)
    writer.string(topic).int32(partitions).int16(replicationFactor).int32(0).int32(settings.length)
    for (const [name, value] of settings) writer.string(name).string(value)
  }
  writer.int32(timeoutMs).boolean(false)
  const reader = new WireReader(await connection.request(CREATE_TOPICS, CREATE_TOPICS_VERSION, writer.parts()))
  reader.int32() // throttle time
  const outcomes: TopicOutcome[] = []
  for (const _ of reader.array()) outcomes.push({ topic: reader.string() ?? '', errorCode: reader.int16(), message: reader.string() })
  return outcomes
}

/** Settings of topics as they are in force. Format: kafka.apache.org/protocol, DescribeConfigs version 3. @throws KafkaFault as above */
export async function describeTopics(
  connection: BrokerConnection,
  topics: readonly string[],
  names: readonly string[],
): Promise<readonly (TopicOutcome & { readonly settings: Readonly<Record<string, string>> })[]> {
  const writer = new WireWriter().int32(topics.length)
  for (const topic of topics) writer.int8(OF_TOPIC).string(topic).strings(names)
  writer.boolean(false).boolean(false)
  const reader = new WireReader(await connection.request(DESCRIBE_CONFIGS, DESCRIBE_CONFIGS_VERSION, writer.parts()))
  reader.int32() // throttle time
  const found: (TopicOutcome & { settings: Record<string, string> })[] = []
  for (const _ of reader.array()) {
    const errorCode = reader.int16()
    const message = reader.string()
    reader.int8() // kind of resource
    const topic = reader.string() ?? ''
    const settings: Record<string, string> = {}
    for (const _ of reader.array()) {
      const name = reader.string() ?? ''
      settings[name] = reader.string() ?? ''
      reader.boolean() // read only
      reader.int8() // where it was set
      reader.boolean() // sensitive
      for (const _ of reader.array()) {
        reader.string() // name, value and source of a synonym
        reader.string()
        reader.int8()
      }
      reader.int8() // type
      reader.string() // documentation
    }
    found.push({ topic, errorCode, message, settings })
  }
  return found
}

/** Which offset of a partition is asked for. */
export const EARLIEST = -2n
export const LATEST = -1n

export interface PartitionOffset {
  readonly topic: string
  readonly partition: number
  /** Kafka's error code; only with 0 is there an offset. */
  readonly errorCode: number
  readonly offset: bigint
}

/**
 * Offsets of partitions of one leader. Format: kafka.apache.org/protocol, ListOffsets version 5.
 * @param committedOnly the latest is the last stable offset, not the high watermark
 * @throws KafkaFault as above
 */
export async function listOffsets(
  connection: BrokerConnection,
  partitions: readonly { readonly topic: string; readonly partition: number }[],
  which: typeof EARLIEST | typeof LATEST,
  committedOnly: boolean,
): Promise<readonly PartitionOffset[]> {
  const byTopic = Map.groupBy(partitions, ({ topic }) => topic)
  const writer = new WireWriter()
    .int32(-1)
    .int8(committedOnly ? 1 : 0)
    .int32(byTopic.size)
  for (const [topic, list] of byTopic) {
    writer.string(topic).int32(list.length)
    for (const { partition } of list) writer.int32(partition).int32(-1).int64(which)
  }
  const reader = new WireReader(await connection.request(LIST_OFFSETS, LIST_OFFSETS_VERSION, writer.parts()))
  reader.int32() // throttle time
  const found: PartitionOffset[] = []
  for (const _ of reader.array()) {
    const topic = reader.string() ?? ''
    for (const _ of reader.array()) {
      const partition = reader.int32()
      const errorCode = reader.int16()
      reader.int64() // timestamp
      found.push({ topic, partition, errorCode, offset: reader.int64() })
      reader.int32() // epoch of the leader
    }
  }
  return found
}
