import { MillraceError } from '../../errors.ts'
import type { TopicSpec } from '../log.ts'
import type { Cluster } from './cluster.ts'
import { faultId } from './error-names.ts'
import { checkCode, KafkaFault } from './kafka-fault.ts'
import { PROGRESS_TOPIC_CONFIG } from './progress-topic.ts'
import { createTopics, describeTopics, type NewTopic } from './topic-requests.ts'

const CREATE_TIMEOUT_MS = 20_000
/** As long as in the embedded log: whoever reads no more often misses deletes. */
const TOMBSTONE_MS = 7 * 24 * 3600 * 1000

/** See `Log.ensureTopics`. @throws log.refused when a topic differs in partitions or in whether it is compacted */
export async function ensureKafkaTopics(cluster: Cluster, specs: readonly TopicSpec[]): Promise<void> {
  const { settings } = cluster
  const wanted = specs.map((spec) => ({
    topic: spec.topic,
    partitions: spec.partitions,
    replicationFactor: spec.replicationFactor ?? settings.replicationFactor,
    config: {
      'retention.ms': String(spec.retentionMs ?? -1),
      ...(spec.compacted ? compactedConfig(spec.retentionMs) : { 'cleanup.policy': 'delete' }),
      ...settings.topicConfig,
    },
  }))
  await cluster.retry('making topics', () => ensure(cluster, wanted))
}

/** Without retention a compacted stream is a table: no record of a key goes by its age. With retention, rows go as well. */
function compactedConfig(retentionMs: number | null): NewTopic['config'] {
  return { 'cleanup.policy': retentionMs === null ? 'compact' : 'compact,delete', 'delete.retention.ms': String(TOMBSTONE_MS) }
}

export async function ensureProgressTopic(cluster: Cluster): Promise<void> {
  const { progressTopic: topic, replicationFactor } = cluster.settings
  await cluster.retry('making the progress topic', () => ensure(cluster, [{ topic, partitions: 1, replicationFactor, config: PROGRESS_TOPIC_CONFIG }], true))
}

async function ensure(cluster: Cluster, wanted: readonly NewTopic[], anyPartitions = false): Promise<void> {
  if (wanted.length === 0) return
  const names = wanted.map(({ topic }) => topic)
  await cluster.refresh(names)
  const missing = wanted.filter(({ topic }) => !cluster.has(topic))
  if (missing.length > 0) {
    await create(cluster, missing)
    await cluster.refresh(names)
    for (const { topic, partitions } of missing) {
      const made = cluster.partitions(topic)
      // other brokers learn of a new topic a moment later
      if (made === 0) throw new KafkaFault('UNKNOWN_TOPIC_OR_PARTITION', topic)
      for (let partition = 0; partition < Math.min(made, partitions); partition++) cluster.leader(topic, partition)
    }
  }
  for (const { topic, partitions } of wanted) {
    const found = cluster.partitions(topic)
    if (found !== partitions && !anyPartitions) {
      throw new MillraceError('log.refused', `topic ${topic} has ${found} partitions, not ${partitions}`, {
        fix: `set the partitions of the stream to ${found}, or delete the topic: keys would change their partition`,
      })
    }
  }
  await checkCompaction(
    cluster,
    wanted.filter((one) => !missing.includes(one)),
  )
}

async function create(cluster: Cluster, missing: readonly NewTopic[]): Promise<void> {
  for (const { topic, errorCode, message } of await createTopics(await cluster.anyBroker(), missing, CREATE_TIMEOUT_MS)) {
    if (faultId(errorCode) !== 'TOPIC_ALREADY_EXISTS') checkCode(errorCode, inTopic(topic, message))
  }
}

const inTopic = (topic: string, message: string | null): string => `topic ${topic}${message ? `: ${message}` : ''}`

/** A compacted stream on a topic that deletes by age would lose rows, and the other way round would lose changes. */
async function checkCompaction(cluster: Cluster, existing: readonly NewTopic[]): Promise<void> {
  if (existing.length === 0) return
  const topics = existing.map(({ topic }) => topic)
  for (const { topic, errorCode, message, settings } of await describeTopics(await cluster.anyBroker(), topics, ['cleanup.policy'])) {
    checkCode(errorCode, inTopic(topic, message))
    const found = settings['cleanup.policy'] ?? ''
    const wanted = existing.find((one) => one.topic === topic)?.config['cleanup.policy'] ?? ''
    if (found.includes('compact') !== wanted.includes('compact')) {
      throw new MillraceError('log.refused', `topic ${topic} has cleanup.policy=${found}, but its stream wants ${wanted}`, {
        fix: `kafka-configs.sh --alter --entity-type topics --entity-name ${topic} --add-config cleanup.policy=[${wanted}]`,
      })
    }
  }
}
