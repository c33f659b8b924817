import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { BrokerConnection } from '../../../../../core/log/kafka/broker-connection.ts'
import { askMetadata, findCoordinator } from '../../../../../core/log/kafka/cluster-requests.ts'
import { fetchFrames } from '../../../../../core/log/kafka/fetch-request.ts'
import { KafkaFault } from '../../../../../core/log/kafka/kafka-fault.ts'
import { produce } from '../../../../../core/log/kafka/produce-request.ts'
import { saslAuthenticate, saslHandshake } from '../../../../../core/log/kafka/sasl-requests.ts'
import { createTopics, describeTopics, LATEST, listOffsets } from '../../../../../core/log/kafka/topic-requests.ts'
import { addPartitionsToTxn, endTxn, initProducerId } from '../../../../../core/log/kafka/transaction-requests.ts'
import { ScriptedBroker } from './scripted-broker.ts'

/** Key and version, the first correlation id, the client id. */
const header = (key: number, version: number): string => `${hex16(key)}${hex16(version)}00000001${'0008'}${Buffer.from('millrace').toString('hex')}`
const hex16 = (value: number): string => value.toString(16).padStart(4, '0')

interface Case {
  readonly name: string
  readonly ask: (connection: BrokerConnection) => Promise<unknown>
  /** Header and fields; the fields are as another implementation, @platformatic/kafka 2.12.1, encodes them. */
  readonly request: string
  /** What a Kafka 4.4 broker answers, shortened here and there. */
  readonly response: string
  readonly result: unknown
}

const SHOP = { transactionalId: 'millrace.shop', id: 4711n, epoch: 3 }
const FRAME = Buffer.from(
  '000000000000000000000039ffffffff024fdcadaa00100000000000000000000000010000000000000001ffffffffffffffffffff00000000000000010e00000001027800',
  'hex',
)

const CASES: readonly Case[] = [
  {
    name: 'metadata of topics, one of which is missing',
    ask: (connection) => askMetadata(connection, ['orders', 'missing']),
    request: `${header(3, 8)}0000000200066f726465727300076d697373696e67000000`,
    response:
      '00000000000000010000000100093132372e302e302e3100009159ffff00164d6b55334f4556424e5463774e544a454e444d3251670000000100000002000000066f7264657273' +
      '0000000002000000000000000000010000000000000001000000010000000100000001000000000000000000010000000100000000000000010000000100000001000000010000' +
      '000080000000000300076d697373696e6700000000008000000080000000',
    result: {
      cluster: 'MkU3OEVBNTcwNTJENDM2Qg',
      brokers: [{ nodeId: 1, host: '127.0.0.1', port: 37209 }],
      topics: [
        { topic: 'orders', errorCode: 0, internal: false, partitions: [0, 1].map((partition) => ({ partition, leader: 1 })) },
        { topic: 'missing', errorCode: 3, internal: false, partitions: [] },
      ],
    },
  },
  {
    name: 'metadata of no topic',
    ask: (connection) => askMetadata(connection, []),
    request: `${header(3, 8)}00000000000000`,
    response: '00000000000000010000000100093132372e302e302e3100009159ffff00164d6b55334f4556424e5463774e544a454e444d325167000000010000000080000000',
    result: { cluster: 'MkU3OEVBNTcwNTJENDM2Qg', brokers: [{ nodeId: 1, host: '127.0.0.1', port: 37209 }], topics: [] },
  },
  {
    name: 'metadata of all topics',
    ask: (connection) => askMetadata(connection, null),
    request: `${header(3, 8)}ffffffff000000`,
    response: '00000000000000010000000100093132372e302e302e3100009159ffff00164d6b55334f4556424e5463774e544a454e444d325167000000010000000080000000',
    result: { cluster: 'MkU3OEVBNTcwNTJENDM2Qg', brokers: [{ nodeId: 1, host: '127.0.0.1', port: 37209 }], topics: [] },
  },
  {
    name: 'coordinator of a transactional id',
    ask: (connection) => findCoordinator(connection, 'millrace.shop'),
    request: `${header(10, 2)}000d6d696c6c726163652e73686f7001`,
    response: '00000000000000044e4f4e450000000100093132372e302e302e3100009159',
    result: { errorCode: 0, message: 'NONE', nodeId: 1, host: '127.0.0.1', port: 37209 },
  },
  {
    name: 'topics to be made, one with a wrong name',
    ask: (connection) =>
      createTopics(
        connection,
        [
          { topic: 'orders', partitions: 2, replicationFactor: -1, config: { 'retention.ms': '-1', 'cleanup.policy': 'compact' } },
          { topic: 'bad topic', partitions: 1, replicationFactor: 1, config: {} },
        ],
        20_000,
      ),
    request:
      `${header(19, 4)}0000000200066f726465727300000002ffff0000000000000002000c726574656e74696f6e2e6d7300022d31000e636c65616e75702e706f6c6963790007` +
      '636f6d70616374000962616420746f706963000000010001000000000000000000004e2000',
    response:
      '000000000000000200066f72646572730000ffff000962616420746f70696300110073546f706963206e616d6520697320696e76616c69643a202762616420746f7069632720' +
      '636f6e7461696e73206f6e65206f72206d6f72652063686172616374657273206f74686572207468616e20415343494920616c7068616e756d65726963732c20272e272c2027' +
      '5f2720616e6420272d27',
    result: [
      { topic: 'orders', errorCode: 0, message: null },
      {
        topic: 'bad topic',
        errorCode: 17,
        message: "Topic name is invalid: 'bad topic' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
      },
    ],
  },
  {
    name: 'settings of topics, one of which is missing',
    ask: (connection) => describeTopics(connection, ['orders', 'missing'], ['cleanup.policy', 'retention.ms']),
    request:
      `${header(32, 3)}000000020200066f726465727300000002000e636c65616e75702e706f6c696379000c726574656e74696f6e2e6d730200076d697373696e670000000200` +
      '0e636c65616e75702e706f6c696379000c726574656e74696f6e2e6d730000',
    response:
      '0000000000000002000000000200066f726465727300000002000e636c65616e75702e706f6c6963790007636f6d706163740001000000000007ffff000c726574656e74696f' +
      '6e2e6d7300022d310001000000000005ffff000300000200076d697373696e6700000000',
    result: [
      { topic: 'orders', errorCode: 0, message: '', settings: { 'cleanup.policy': 'compact', 'retention.ms': '-1' } },
      { topic: 'missing', errorCode: 3, message: '', settings: {} },
    ],
  },
  {
    name: 'ends of partitions, one of which is missing',
    ask: (connection) =>
      listOffsets(connection, [...[1, 0].map((partition) => ({ topic: 'orders', partition })), { topic: 'missing', partition: 0 }], LATEST, false),
    request:
      `${header(2, 5)}ffffffff000000000200066f72646572730000000200000001ffffffffffffffffffffffff00000000ffffffffffffffffffffffff00076d697373696e67` +
      '0000000100000000ffffffffffffffffffffffff',
    response:
      '000000000000000200076d697373696e6700000001000000000003ffffffffffffffffffffffffffffffffffffffff00066f726465727300000002000000000000ffffffffff' +
      'ffffff000000000000000200000000000000010000ffffffffffffffff000000000000000000000000',
    result: [
      { topic: 'missing', partition: 0, errorCode: 3, offset: -1n },
      { topic: 'orders', partition: 0, errorCode: 0, offset: 2n },
      { topic: 'orders', partition: 1, errorCode: 0, offset: 0n },
    ],
  },
  {
    name: 'the last stable offset',
    ask: (connection) => listOffsets(connection, [{ topic: 'orders', partition: 0 }], LATEST, true),
    request: `${header(2, 5)}ffffffff010000000100066f72646572730000000100000000ffffffffffffffffffffffff`,
    response: '000000000000000100066f726465727300000001000000000000ffffffffffffffff000000000000000200000000',
    result: [{ topic: 'orders', partition: 0, errorCode: 0, offset: 2n }],
  },
  {
    name: 'a producer id for a transactional id',
    ask: (connection) => initProducerId(connection, { transactionalId: 'millrace.shop', id: -1n, epoch: -1 }, 60_000),
    request: `${header(22, 4)}000e6d696c6c726163652e73686f700000ea60ffffffffffffffffffff00`,
    response: '000000000000000000000000000000000100',
    result: { errorCode: 0, id: 0n, epoch: 1 },
  },
  {
    name: 'the next epoch, from a coordinator that is not ready',
    ask: (connection) => initProducerId(connection, SHOP, 60_000),
    request: `${header(22, 4)}000e6d696c6c726163652e73686f700000ea600000000000001267000300`,
    response: '0000000000000effffffffffffffffffff00',
    result: { errorCode: 14, id: -1n, epoch: -1 },
  },
  {
    name: 'partitions for a transaction, one of which is missing',
    ask: (connection) =>
      addPartitionsToTxn(connection, SHOP, [{ topic: 'missing', partition: 0 }, ...[1, 0].map((partition) => ({ topic: 'orders', partition }))]),
    request:
      `${header(24, 2)}000d6d696c6c726163652e73686f70000000000000126700030000000200076d697373696e67000000010000000000066f72646572730000000200000001` +
      '00000000',
    response: '000000000000000200076d697373696e670000000100000000000300066f726465727300000001000000000037',
    result: [
      { topic: 'missing', partition: 0, errorCode: 3 },
      { topic: 'orders', partition: 0, errorCode: 55 },
    ],
  },
  {
    name: 'a commit',
    ask: (connection) => endTxn(connection, SHOP, true),
    request: `${header(26, 2)}000d6d696c6c726163652e73686f700000000000001267000301`,
    response: '000000000031',
    result: 49,
  },
  {
    name: 'an abort',
    ask: (connection) => endTxn(connection, SHOP, false),
    request: `${header(26, 2)}000d6d696c6c726163652e73686f700000000000001267000300`,
    response: '000000000000',
    result: 0,
  },
  {
    name: 'a mechanism',
    ask: (connection) => saslHandshake(connection, 'SCRAM-SHA-256'),
    request: `${header(17, 1)}000d534352414d2d5348412d323536`,
    response: '0021000000020005504c41494e000d534352414d2d5348412d353132',
    result: { errorCode: 33, mechanisms: ['PLAIN', 'SCRAM-SHA-512'] },
  },
  {
    name: 'a step of a mechanism',
    ask: (connection) => saslAuthenticate(connection, Buffer.from('n,,n=user,r=abc')),
    request: `${header(36, 1)}0000000f6e2c2c6e3d757365722c723d616263`,
    response: '0000ffff00000003723d6100000000000005dc',
    result: { errorCode: 0, message: null, bytes: Buffer.from('r=a'), sessionLifetimeMs: 1500 },
  },
  {
    name: 'a frame',
    ask: (connection) => produce(connection, 'millrace.shop', [{ topic: 'orders', partition: 1, pieces: [FRAME.subarray(0, 61), FRAME.subarray(61)] }]),
    request: `${header(0, 8)}000d6d696c6c726163652e73686f70ffff000061a80000000100066f7264657273000000010000000100000045${FRAME.toString('hex')}`,
    response:
      '0000000100066f726465727300000001000000010057ffffffffffffffffffffffffffffffff00000000000000000000000100000000000b6e6f206b657920686572650006' +
      '72656675736500000000',
    result: [{ topic: 'orders', partition: 1, errorCode: 87, message: 'refuse', baseOffset: -1n }],
  },
  {
    name: 'frames of partitions, one of which is missing',
    ask: (connection) => {
      const limits = { committedOnly: true, waitMs: 500, maxBytes: 1000, partitionMaxBytes: 900 }
      return fetchFrames(
        connection,
        [
          { topic: 'orders', partition: 1, offset: 0n },
          { topic: 'missing', partition: 0, offset: 5n },
        ],
        limits,
      )
    },
    request:
      `${header(1, 11)}ffffffff000001f400000001000003e80100000000ffffffff0000000200066f72646572730000000100000001ffffffff0000000000000000ffffffff` +
      'ffffffff0000038400076d697373696e670000000100000000ffffffff0000000000000005ffffffffffffffff00000384000000000000',
    response:
      '000000000000000000000000000200066f72646572730000000100000001000000000000000000010000000000000001000000000000000000000001000000000000126700000000' +
      `00000000ffffffff00000045${FRAME.toString('hex')}00076d697373696e6700000001000000000003ffffffffffffffffffffffffffffffffffffffffffffffff00000000` +
      'ffffffff00000000',
    result: [
      {
        topic: 'orders',
        partition: 1,
        fault: null,
        highWatermark: 1n,
        lastStableOffset: 1n,
        startOffset: 0n,
        aborted: [{ producerId: 4711n, firstOffset: 0n }],
        frames: FRAME,
      },
      {
        topic: 'missing',
        partition: 0,
        fault: 'UNKNOWN_TOPIC_OR_PARTITION',
        highWatermark: -1n,
        lastStableOffset: -1n,
        startOffset: -1n,
        aborted: [],
        frames: Buffer.alloc(0),
      },
    ],
  },
]

test.each(CASES)('$name: these bytes are asked, and this is read from the answer', async ({ ask, request, response, result }) => {
  await using broker = await ScriptedBroker.start(() => Buffer.from(response, 'hex'))
  const connection = await broker.connect()
  expect(await ask(connection)).toEqual(result)
  connection.close()
  expect(broker.asked.map((bytes) => bytes.toString('hex'))).toEqual([request])
})

test.each(CASES)('$name: an answer that ends too early is an error, wherever it does', async ({ ask, response }) => {
  const whole = Buffer.from(response, 'hex')
  let length = 0
  await using broker = await ScriptedBroker.start(() => whole.subarray(0, length))
  const connection = await broker.connect()
  for (; length < whole.length; length++) {
    await expect(ask(connection), `${length} of ${whole.length} bytes`).rejects.toEqual(expect.objectContaining({ id: 'NETWORK_EXCEPTION' }))
  }
  connection.close()
})

test('a damaged answer gives an error or other values, and always comes to an end', async () => {
  let answer = Buffer.alloc(0)
  await using broker = await ScriptedBroker.start(() => answer)
  const connection = await broker.connect()
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...CASES),
      fc.array(fc.tuple(fc.nat(), fc.nat({ max: 255 })), { minLength: 1, maxLength: 4 }),
      async ({ ask, response }, edits) => {
        answer = Buffer.from(response, 'hex')
        for (const [at, byte] of edits) answer[at % answer.length] = byte
        await ask(connection).catch((error: unknown) => expect(error).toBeInstanceOf(KafkaFault))
      },
    ),
    { numRuns: 500 },
  )
  connection.close()
})
