import { frameOf, type PlainRecord } from '../../core/event/record-batch.ts'
import type { EncodedBatch, Frame, TopicSpec } from '../../core/log/log.ts'

export const PARTITIONS = 3
const KEYS = 5

export const TOPICS: readonly TopicSpec[] = [
  { topic: 'all', partitions: PARTITIONS, retentionMs: null, compacted: false, replicationFactor: null },
  { topic: 'latest', partitions: 1, retentionMs: null, compacted: true, replicationFactor: null },
]

/** Values of batch `n` in a partition of topic `all`; some batches leave partitions out. */
export function valuesOf(n: number, partition: number): string[] {
  return Array.from({ length: (n * 7 + partition * 3) % 4 }, (_, i) => `${n}.${partition}.${i}${'x'.repeat((n * 131) % 700)}`)
}

/** Topic `latest` has five keys; batch `n` sets one of them, now and then to nothing. */
export function latestOf(n: number): { readonly key: string; readonly value: string | null } {
  return { key: `k${n % KEYS}`, value: n % 13 === 0 ? null : `v${n}` }
}

export function knownBatch(n: number): EncodedBatch {
  const frames: Frame[] = []
  const add = (topic: string, partition: number, plain: readonly PlainRecord[]) => {
    if (plain.length > 0) frames.push({ topic, partition, ...frameOf(plain, Date.now()) })
  }
  for (let partition = 0; partition < PARTITIONS; partition++) {
    add(
      'all',
      partition,
      valuesOf(n, partition).map((value) => ({ key: null, value: Buffer.from(value) })),
    )
  }
  const { key, value } = latestOf(n)
  add('latest', 0, [{ key: Buffer.from(key), value: value === null ? null : Buffer.from(value) }])
  return { frames, count: frames.reduce((sum, frame) => sum + frame.count, 0), progress: new Map([['n', n]]) }
}
