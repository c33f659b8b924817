import { MillraceError } from '../../errors.ts'
import type { Log, LogBatch, LogWriter, Progress, ReadFrom, TopicSpec } from '../log.ts'
import { Cluster } from './cluster.ts'
import { hasFault, KafkaFault } from './kafka-fault.ts'
import type { KafkaLogOptions } from './kafka-options.ts'
import { readBatches } from './kafka-reader.ts'
import { kafkaSettings } from './kafka-settings.ts'
import { ensureKafkaTopics, ensureProgressTopic } from './kafka-topics.ts'
import { openKafkaWriter } from './kafka-writer.ts'
import { partitionBounds } from './partition-bounds.ts'
import { readNodeState } from './progress-topic.ts'

/**
 * A log on Apache Kafka 3.0 or later. Fails within `unreachableMs` when no broker answers; later outages are waited for.
 * @throws config.invalid, log.unreachable, log.refused (rights, credentials, settings)
 */
export async function openKafkaLog(options: KafkaLogOptions): Promise<Log> {
  const cluster = new Cluster(kafkaSettings(options))
  try {
    await cluster.retry('connecting', () => cluster.refresh([]))
    await ensureProgressTopic(cluster)
  } catch (error) {
    cluster.close()
    throw error
  }
  return new KafkaLog(cluster)
}

class KafkaLog implements Log {
  readonly kind = 'kafka'
  readonly #cluster: Cluster

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  get identity(): string | null {
    return this.#cluster.id
  }

  ensureTopics(specs: readonly TopicSpec[]): Promise<void> {
    return ensureKafkaTopics(this.#cluster, specs)
  }

  topics(): Promise<readonly { readonly topic: string; readonly partitions: number }[]> {
    return this.#cluster.retry('listing topics', async () => {
      await this.#cluster.refresh(null)
      return this.#cluster.topics().filter(({ topic }) => topic !== this.#cluster.settings.progressTopic)
    })
  }

  openWriter(node: string): Promise<LogWriter> {
    return openKafkaWriter(this.#cluster, node)
  }

  consume(from: readonly ReadFrom[], signal: AbortSignal): AsyncIterable<LogBatch> {
    return readBatches(this.#cluster, from, signal)
  }

  bounds(
    topic: string,
    end: 'committed' | 'written' = 'committed',
  ): Promise<readonly { readonly partition: number; readonly start: bigint; readonly end: bigint }[]> {
    return this.#cluster.retry(`asking for the bounds of ${topic}`, async (attempt) => {
      if (attempt > 0) this.#cluster.forget([topic])
      await this.#cluster.know([topic]).catch((error: unknown) => {
        if (attempt < 8 || !hasFault(error, 'UNKNOWN_TOPIC_OR_PARTITION')) throw error
        throw new MillraceError('log.refused', `Kafka has no topic ${topic}`, { fix: 'create the topic, or check its name', cause: error })
      })
      const wanted = Array.from({ length: this.#cluster.partitions(topic) }, (_, partition) => ({ topic, partition }))
      // another reader of the topic may have forgotten it since
      if (wanted.length === 0) throw new KafkaFault('UNKNOWN_TOPIC_OR_PARTITION', topic)
      // markers of one transaction appear in its partitions one after the other, its records before any of them
      const bounds = await partitionBounds(this.#cluster, wanted, end === 'committed' ? 'last-stable' : 'high-watermark')
      return bounds.map(({ partition, start, end }) => ({ partition, start, end }))
    })
  }

  progress(node: string): Promise<Progress> {
    return this.#cluster.retry(`reading the progress of ${node}`, async (attempt) => {
      if (attempt > 0) this.#cluster.forget([this.#cluster.settings.progressTopic])
      return (await readNodeState(this.#cluster, this.#cluster.settings.progressTopic, node)).progress
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#cluster.close()
  }
}
