import { expect, test } from 'vitest'
import { Cluster } from '../../../../../core/log/kafka/cluster.ts'
import { kafkaSettings } from '../../../../../core/log/kafka/kafka-settings.ts'
import { ProducerSession } from '../../../../../core/log/kafka/producer-session.ts'
import { ScriptedBroker } from './scripted-broker.ts'

const FIND_COORDINATOR = 10
const COORDINATOR_NOT_AVAILABLE = 15
const CONCURRENT_TRANSACTIONS = 51

/** FindCoordinator version 2: broker 1 at this address. */
function coordinatorAt(address: string): Buffer {
  const [host, port] = address.split(':')
  const tail = Buffer.alloc(4)
  tail.writeInt32BE(Number(port))
  return Buffer.concat([Buffer.from('000000000000ffff00000001', 'hex'), Buffer.from([0, host!.length]), Buffer.from(host!), tail])
}

/** AddPartitionsToTxn version 2: partitions of the topic `t`, each with its error code. */
function added(codes: readonly (readonly [partition: number, code: number])[]): Buffer {
  const list = codes.map(([partition, code]) => `${partition.toString(16).padStart(8, '0')}${code.toString(16).padStart(4, '0')}`)
  return Buffer.from(`0000000000000001000174${list.length.toString(16).padStart(8, '0')}${list.join('')}`, 'hex')
}

test.each([
  [
    'all',
    [
      [0, 0],
      [1, 0],
    ],
    null,
  ],
  [
    'one of another kind',
    [
      [0, 3],
      [1, 55],
    ],
    /^UNKNOWN_TOPIC_OR_PARTITION: .*millrace\.shop, topic t partition 0$/,
  ],
  [
    'the one that was tried',
    [
      [0, 55],
      [1, 3],
    ],
    /^UNKNOWN_TOPIC_OR_PARTITION: .*partition 1$/,
  ],
  [
    'the one that no retry helps',
    [
      [0, 3],
      [1, 29],
    ],
    /^TOPIC_AUTHORIZATION_FAILED: .*partition 1$/,
  ],
  ['one that the broker says nothing of', [[0, 0]], /^UNKNOWN_SERVER_ERROR: .*partition 1$/],
] as const)('partitions are added together, and the failure that counts is named: %s', async (_, codes, message) => {
  await using broker = await ScriptedBroker.start((request) => (request.readInt16BE(0) === FIND_COORDINATOR ? coordinatorAt(broker.address) : added(codes)))
  const cluster = new Cluster(kafkaSettings({ brokers: [broker.address] }))
  const session = new ProducerSession(cluster, 'millrace.shop', 'writer', true)
  const adding = session.addPartitions([0, 1].map((partition) => ({ topic: 't', partition })))
  if (message === null) await adding
  else await expect(adding).rejects.toThrow(message)
  session.close()
  cluster.close()
})

/** A session whose coordinator answers each EndTxn with the next of these codes, and the last of them for ever. */
async function committing(unreachableMs: number, codes: readonly number[]): Promise<unknown> {
  let asked = 0
  await using broker = await ScriptedBroker.start((request) => {
    if (request.readInt16BE(0) === FIND_COORDINATOR) return coordinatorAt(broker.address)
    const answer = Buffer.alloc(6)
    answer.writeInt16BE(codes[Math.min(asked++, codes.length - 1)]!, 4)
    return answer
  })
  const cluster = new Cluster(kafkaSettings({ brokers: [broker.address], unreachableMs }))
  const session = new ProducerSession(cluster, 'millrace.shop', 'writer', true)
  try {
    return await session.commit().then(
      () => asked,
      (error: unknown) => error,
    )
  } finally {
    session.close()
    cluster.close()
  }
}

test('a commit whose coordinator is away is given up after unreachableMs', async () => {
  expect(await committing(20, [COORDINATOR_NOT_AVAILABLE])).toMatchObject({ message: expect.stringContaining('COORDINATOR_NOT_AVAILABLE') })
})

test('a commit that is decided is waited for while its coordinator says so, beyond unreachableMs', async () => {
  // each time it waits for at least a millisecond
  const ending = new Array<number>(60).fill(CONCURRENT_TRANSACTIONS)
  expect(await committing(20, [...ending, 0])).toBe(ending.length + 1)
  expect(await committing(20, [0, ...ending, 0])).toBe(ending.length + 2)
})
