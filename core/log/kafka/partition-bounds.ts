import type { Cluster } from './cluster.ts'
import { faultId } from './error-names.ts'
import { KafkaFault } from './kafka-fault.ts'
import { EARLIEST, LATEST, listOffsets } from './topic-requests.ts'

export interface PartitionBounds {
  readonly topic: string
  readonly partition: number
  readonly start: bigint
  readonly end: bigint
}

/** First retained offset and the end of partitions whose topics are known: the last stable offset (committed only) or the high watermark. */
export async function partitionBounds(
  cluster: Cluster,
  wanted: readonly { readonly topic: string; readonly partition: number }[],
  end: 'last-stable' | 'high-watermark',
): Promise<readonly PartitionBounds[]> {
  const starts = await offsets(cluster, wanted, EARLIEST, false)
  const ends = await offsets(cluster, wanted, LATEST, end === 'last-stable')
  return wanted.map((partition, index) => ({ ...partition, start: starts[index]!, end: ends[index]! }))
}

async function offsets(
  cluster: Cluster,
  wanted: readonly { readonly topic: string; readonly partition: number }[],
  which: typeof EARLIEST | typeof LATEST,
  committedOnly: boolean,
): Promise<readonly bigint[]> {
  const found = new Map<string, bigint>()
  for (const [leader, list] of Map.groupBy(wanted, ({ topic, partition }) => cluster.leader(topic, partition))) {
    const connection = await cluster.connection('control', leader)
    for (const { topic, partition, errorCode, offset } of await listOffsets(connection, list, which, committedOnly)) {
      const failed = faultId(errorCode)
      if (failed !== null) {
        cluster.forget([topic])
        throw new KafkaFault(failed, `${topic} partition ${partition}`)
      }
      found.set(`${topic}/${partition}`, offset)
    }
  }
  return wanted.map(({ topic, partition }) => {
    const offset = found.get(`${topic}/${partition}`)
    if (offset === undefined) throw new KafkaFault('UNKNOWN_TOPIC_OR_PARTITION', `${topic} partition ${partition}`)
    return offset
  })
}
