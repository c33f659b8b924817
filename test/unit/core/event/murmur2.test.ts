import fc from 'fast-check'
import kafkajs from 'kafkajs'
import { expect, test } from 'vitest'
import { murmur2, partitionOf } from '../../../../core/event/murmur2.ts'

// vectors of org.apache.kafka.common.utils.UtilsTest.testMurmur2
test.each([
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
])('murmur2 of %s is as in Java', (text, hash) => {
  const bytes = Buffer.from(text)
  expect(murmur2(bytes, 0, bytes.length)).toBe(hash)
})

test('partitions are those of the default partitioner of kafkajs, wherever the key lies in its buffer', () => {
  const partitioner = kafkajs.Partitioners.DefaultPartitioner()
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(40), fc.integer({ min: 1, max: 64 }), (key, from, partitions) => {
      const bytes = Buffer.concat([Buffer.alloc(from, 0xa5), key, Buffer.alloc(7, 0x5a)])
      const partitionMetadata = Array.from({ length: partitions }, (_, partitionId) => ({
        partitionId,
        leader: 1,
        replicas: [],
        isr: [],
        partitionErrorCode: 0,
      }))
      const theirs = partitioner({ topic: 't', partitionMetadata, message: { key: Buffer.from(key), value: null } })
      expect(partitionOf(bytes, from, from + key.length, partitions)).toBe(theirs)
    }),
  )
})
