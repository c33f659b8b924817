/** Three brokers in one KRaft cluster, each broker and controller, with what a careful operator sets: three copies, two of them in sync. */
import path from 'node:path'
import { freePorts } from './free-ports.ts'
import { type KafkaServer, startKafka } from './kafka.ts'

const NODES = 3

export interface KafkaCluster {
  readonly brokers: string[]
  /** By node id. */
  node(id: number): KafkaServer
  readonly ids: readonly number[]
  kill(): Promise<void>
}

/** @throws when a broker does not answer within two minutes */
export async function startKafkaCluster(dir: string): Promise<KafkaCluster> {
  const ids = Array.from({ length: NODES }, (_, index) => index + 1)
  const free = await freePorts(2 * NODES)
  const ports = new Map(ids.map((id) => [id, { broker: free[2 * id - 2]!, controller: free[2 * id - 1]! }]))
  const voters = [...ports].map(([id, { controller }]) => `${id}@127.0.0.1:${controller}`).join(',')
  const start = async (id: number): Promise<[number, KafkaServer]> => [
    id,
    await startKafka({
      dir: path.join(dir, `n${id}`),
      ports: ports.get(id)!,
      jvm: ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xms96m', '-Xmx320m'],
      properties: {
        'node.id': String(id),
        'controller.quorum.voters': voters,
        'default.replication.factor': '3',
        'min.insync.replicas': '2',
        'offsets.topic.replication.factor': '3',
        'transaction.state.log.replication.factor': '3',
        'transaction.state.log.min.isr': '2',
        // a dead broker is noticed sooner than in production, so that tests are short
        'broker.session.timeout.ms': '3000',
        'broker.heartbeat.interval.ms': '500',
        'replica.lag.time.max.ms': '3000',
      },
    }),
  ]
  const started = await Promise.allSettled(ids.map(start))
  const nodes = new Map(started.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : [])))
  const kill = async () => void (await Promise.all([...nodes.values()].map((node) => node.kill())))
  const failed = started.find((outcome) => outcome.status === 'rejected')
  if (failed !== undefined) {
    await kill()
    throw failed.reason
  }
  return { ids, brokers: ids.map((id) => `127.0.0.1:${ports.get(id)!.broker}`), node: (id) => nodes.get(id)!, kill }
}
