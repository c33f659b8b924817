import { expect, test } from 'vitest'
import { kafkaSettings } from '../../../../../core/log/kafka/kafka-settings.ts'

test('brokers are read with and without a port, as names and as addresses', () => {
  const { brokers } = kafkaSettings({ brokers: ['kafka-1.example.org:9093', 'kafka-2', '[::1]:9092'] })
  expect(brokers).toEqual([
    { host: 'kafka-1.example.org', port: 9093 },
    { host: 'kafka-2', port: 9092 },
    { host: '::1', port: 9092 },
  ])
})

test.each([[[]], [['']], [['host:0']], [['host:70000']], [['http://host:9092']], [['a b:1']]])('brokers %j are refused', (brokers) => {
  expect(() => kafkaSettings({ brokers })).toThrow(expect.objectContaining({ code: 'config.invalid' }))
})

test('exactly-once in transactions of 50 ms is what one gets without asking', () => {
  expect(kafkaSettings({ brokers: ['a'] })).toMatchObject({ exactlyOnce: true, transactionMs: 50, compression: 'none', progressTopic: '__millrace.progress' })
  expect(() => kafkaSettings({ brokers: ['a'], transactionMs: 0 })).toThrow(expect.objectContaining({ code: 'config.invalid' }))
})
