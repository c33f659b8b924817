import { listOffsetsV6 } from '@platformatic/kafka'
import type { Cluster } from './cluster.ts'
import { responseOf } from './cluster.ts'
import { faultId, KafkaFault } from './kafka-fault.ts'

const EARLIEST = -2n
const LATEST = -1n

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
  const starts = await offsets(cluster, wanted, EARLIEST, 0)
  const ends = await offsets(cluster, wanted, LATEST, end === 'last-stable' ? 1 : 0)
  return wanted.map((partition, index) => ({ ...partition, start: starts[index]!, end: ends[index]! }))
}

async function offsets(
  cluster: Cluster,
  wanted: readonly { readonly topic: string; readonly partition: number }[],
  timestamp: bigint,
  isolation: 0 | 1,
): Promise<readonly bigint[]> {
  const found = new Map<string, bigint>()
  for (const [leader, list] of Map.groupBy(wanted, ({ topic, partition }) => cluster.leader(topic, partition))) {
    const topics = [...Map.groupBy(list, ({ topic }) => topic)].map(([name, parts]) => ({
      name,
      partitions: parts.map(({ partition }) => ({ partitionIndex: partition, currentLeaderEpoch: -1, timestamp })),
    }))
    const connection = await cluster.connection('control', leader)
    const answer = await connection.call(listOffsetsV6.api, -1, isolation, topics).catch((error: unknown) => {
      const response = responseOf<Awaited<ReturnType<typeof listOffsetsV6.api.async>>>(error)
      if (response === null) throw error
      return response
    })
    for (const { name, partitions } of answer.topics) {
      for (const { partitionIndex, errorCode, offset } of partitions) {
        const failed = faultId(errorCode)
        if (failed !== null) {
          cluster.forget([name])
          throw new KafkaFault(failed, `${name} partition ${partitionIndex}`)
        }
        found.set(`${name}/${partitionIndex}`, offset)
      }
    }
  }
  return wanted.map(({ topic, partition }) => {
    const offset = found.get(`${topic}/${partition}`)
    if (offset === undefined) throw new KafkaFault('UNKNOWN_TOPIC_OR_PARTITION', `${topic} partition ${partition}`)
    return offset
  })
}
