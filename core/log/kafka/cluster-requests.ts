import type { BrokerConnection } from './broker-connection.ts'
import { WireReader, WireWriter } from './wire.ts'

const METADATA = 3
/** Kafka 2.3 to 4.x; the last version that is not flexible. */
const METADATA_VERSION = 8
const FIND_COORDINATOR = 10
/** Kafka 2.0 to 4.x; the last version that is not flexible. */
const FIND_COORDINATOR_VERSION = 2
const OF_TRANSACTIONS = 1

export interface BrokerAddress {
  readonly nodeId: number
  readonly host: string
  readonly port: number
}

export interface TopicMetadata {
  readonly topic: string
  /** Kafka's error code, 0 when the rest is right. */
  readonly errorCode: number
  readonly internal: boolean
  /** `leader`: its node id, -1 without one. */
  readonly partitions: readonly { readonly partition: number; readonly leader: number }[]
}

/**
 * The cluster's id, its brokers, and the leaders of these topics (null: of all). Makes no topic. Format: kafka.apache.org/protocol, Metadata version 8.
 * @throws KafkaFault for an answer that ends too early
 */
export async function askMetadata(
  connection: BrokerConnection,
  topics: readonly string[] | null,
): Promise<{ readonly cluster: string | null; readonly brokers: readonly BrokerAddress[]; readonly topics: readonly TopicMetadata[] }> {
  const writer = new WireWriter().strings(topics).boolean(false).boolean(false).boolean(false)
  const reader = new WireReader(await connection.request(METADATA, METADATA_VERSION, writer.parts()))
  reader.int32() // throttle time
  const brokers: BrokerAddress[] = []
  for (const _ of reader.array()) {
    brokers.push({ nodeId: reader.int32(), host: reader.string() ?? '', port: reader.int32() })
    reader.string() // rack
  }
  const cluster = reader.string()
  reader.int32() // controller
  const found: TopicMetadata[] = []
  for (const _ of reader.array()) {
    const errorCode = reader.int16()
    const topic = reader.string() ?? ''
    const internal = reader.boolean()
    const partitions: { partition: number; leader: number }[] = []
    for (const _ of reader.array()) {
      reader.int16() // error: the leader says enough
      partitions.push({ partition: reader.int32(), leader: reader.int32() })
      reader.int32() // epoch of the leader
      for (const _ of ['replicas', 'in sync', 'offline']) for (const _ of reader.array()) reader.int32()
    }
    reader.int32() // authorized operations
    found.push({ topic, errorCode, internal, partitions })
  }
  reader.int32() // authorized operations on the cluster
  return { cluster, brokers, topics: found }
}

export interface Coordinator extends BrokerAddress {
  /** Kafka's error code; only with 0 is there an address. */
  readonly errorCode: number
  readonly message: string | null
}

/** The broker that coordinates the transactions of an id. Format: kafka.apache.org/protocol, FindCoordinator version 2. @throws KafkaFault as above */
export async function findCoordinator(connection: BrokerConnection, transactionalId: string): Promise<Coordinator> {
  const writer = new WireWriter().string(transactionalId).int8(OF_TRANSACTIONS)
  const reader = new WireReader(await connection.request(FIND_COORDINATOR, FIND_COORDINATOR_VERSION, writer.parts()))
  reader.int32() // throttle time
  return { errorCode: reader.int16(), message: reader.string(), nodeId: reader.int32(), host: reader.string() ?? '', port: reader.int32() }
}
