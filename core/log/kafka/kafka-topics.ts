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

/** See `Log.ensureTopics`. @throws log.refused when a topic differs in partitions, or would lose what its stream keeps */
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
  await checkSettings(
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

/** A setting of a topic that exists, other than its stream wants it. */
export interface SettingDifference {
  readonly name: string
  readonly wanted: string
  readonly found: string
  /** Records would go, or be superseded, that the stream keeps; else the topic only keeps them longer, or its tombstones shorter. */
  readonly loses: boolean
}

const CHECKED = ['cleanup.policy', 'retention.ms', 'delete.retention.ms']

export function differingSettings(wanted: Readonly<Record<string, string>>, found: Readonly<Record<string, string>>): readonly SettingDifference[] {
  const differences: SettingDifference[] = []
  const differs = (name: string, loses: boolean) => differences.push({ name, wanted: wanted[name] ?? '', found: found[name] ?? '', loses })
  const [policy, foundPolicy] = [policies(wanted['cleanup.policy']), policies(found['cleanup.policy'])]
  const deletes = foundPolicy.has('delete')
  if (policy.has('compact') !== foundPolicy.has('compact')) differs('cleanup.policy', true)
  else if (policy.has('delete') !== deletes) differs('cleanup.policy', deletes)
  const [retention, foundRetention] = [milliseconds(wanted['retention.ms']), milliseconds(found['retention.ms'])]
  if (policy.has('delete') && deletes && retention !== foundRetention) differs('retention.ms', foundRetention < retention)
  const tombstones = wanted['delete.retention.ms']
  if (tombstones !== undefined && milliseconds(found['delete.retention.ms']) < milliseconds(tombstones)) differs('delete.retention.ms', false)
  return differences
}

function policies(setting = ''): ReadonlySet<string> {
  return new Set(setting.split(',').flatMap((policy) => (policy.trim() === '' ? [] : [policy.trim()])))
}

/** Kafka's -1 is for ever, and so is what is not set. */
function milliseconds(setting = '-1'): number {
  return Number(setting) < 0 ? Number.POSITIVE_INFINITY : Number(setting)
}

/** @throws log.refused when a topic that exists would lose what its stream keeps; what it keeps beyond that is only told */
async function checkSettings(cluster: Cluster, existing: readonly NewTopic[]): Promise<void> {
  if (existing.length === 0) return
  const found = await topicSettings(
    cluster,
    existing.map(({ topic }) => topic),
    CHECKED,
  )
  for (const { topic, config } of existing) {
    const differences = differingSettings(config, found.get(topic) ?? {})
    if (differences.length === 0) continue
    const say = differences.map(({ name, wanted, found }) => `${name}=${found} where its stream wants ${wanted}`).join(', ')
    const settings = differences.map(({ name, wanted }) => `${name}=${wanted.includes(',') ? `[${wanted}]` : wanted}`).join(',')
    const repair = `kafka-configs.sh --bootstrap-server ${cluster.name} --alter --entity-type topics --entity-name ${topic} --add-config ${settings}`
    const fix = `${repair}, or set \`topics\` of the source as the topic is`
    if (differences.some(({ loses }) => loses)) throw new MillraceError('log.refused', `topic ${topic} has ${say}`, { fix })
    cluster.settings.onWarning(`topic ${topic} has ${say}; to repair it: ${fix}`)
  }
}

/** Settings as they are in force, by topic. @throws KafkaFault */
export async function topicSettings(
  cluster: Cluster,
  topics: readonly string[],
  names: readonly string[],
): Promise<ReadonlyMap<string, Readonly<Record<string, string>>>> {
  const found = new Map<string, Readonly<Record<string, string>>>()
  for (const { topic, errorCode, message, settings } of await describeTopics(await cluster.anyBroker(), topics, names)) {
    checkCode(errorCode, inTopic(topic, message))
    found.set(topic, settings)
  }
  return found
}
