import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { committedAt } from '../../../../connectors/cockroachdb/changefeed-message.ts'
import { elements, members } from '../../../../connectors/cockroachdb/json-text.ts'
import { OrderBuffer } from '../../../../connectors/cockroachdb/order-buffer.ts'
import { EMPLOYEES } from './documents.ts'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'order-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const plain = ({ at, table, key, value }: { at: { wall: bigint; logical: number }; table: string; key: Buffer; value: Buffer }) =>
  `${at.wall}.${at.logical} ${table} ${key} ${value}`

describe('the order buffer', () => {
  test('puts the documented messages in order, and each once', () => {
    using buffer = new OrderBuffer(dir, 1 << 20)
    for (const text of EMPLOYEES) {
      const key = Buffer.from(elements(members(text).get('key')!.raw)[0]!.raw)
      buffer.add(
        committedAt(Buffer.from(text), () => ''),
        'employees',
        key,
        Buffer.from(text),
      )
    }
    // Robbie's time: Danny's row is not complete yet
    const names = (wall: bigint) => [...buffer.upTo(wall)].map(({ value }) => /"name": "(\w+)"/.exec(value.toString())![1])
    expect(names(1_701_102_330_377_135_318n)).toEqual(['Terry', 'Alex', 'Terri', 'Ash', 'Terrence', 'Alex', 'Robbie'])
    expect(names(1_701_102_561_022_789_675n)).toEqual([])
    expect(names(1_701_102_561_022_789_676n)).toEqual(['Danny'])
    expect(buffer.bytes).toBe(0)
  })

  test('of a row that came twice with one time the last counts, in memory and in files', () => {
    for (const memory of [1 << 20, 1]) {
      using buffer = new OrderBuffer(dir, memory)
      for (const value of ['one', 'two', 'three']) buffer.add({ wall: 5n, logical: 1 }, 't', Buffer.from('[1]'), Buffer.from(value))
      expect([...buffer.upTo(5n)].map(plain)).toEqual(['5.1 t [1] three'])
    }
  })

  test('gives what a sorted map gives, however it is cut into files and takes', () => {
    const message = fc.record({
      wall: fc.integer({ min: 0, max: 60 }),
      logical: fc.integer({ min: 0, max: 2 }),
      table: fc.constantFrom('a', 'b'),
      key: fc.integer({ min: 0, max: 12 }),
    })
    fc.assert(
      fc.property(fc.array(fc.array(message, { maxLength: 60 }), { maxLength: 6 }), fc.constantFrom(1, 300, 100_000), (rounds, memory) => {
        using buffer = new OrderBuffer(dir, memory)
        const model = new Map<string, string>()
        let bound = -1
        let n = 0
        for (const round of rounds) {
          for (const { wall, logical, table, key } of round) {
            if (wall <= bound) continue
            const value = `value ${n++} ${'x'.repeat(n % 50)}`
            buffer.add({ wall: BigInt(wall), logical }, table, Buffer.from(`[${key}]`), Buffer.from(value))
            model.set(JSON.stringify([wall, logical, table, `[${key}]`.length, `[${key}]`]), value)
          }
          bound += 9
          const due = [...model].map(([id, value]) => [JSON.parse(id), value] as const).filter(([[wall]]) => wall <= bound)
          const order = (a: readonly unknown[], b: readonly unknown[]) => {
            const i = a.findIndex((part, at) => part !== b[at])
            return i < 0 ? 0 : (a[i] as number) < (b[i] as number) ? -1 : 1
          }
          due.sort(([a], [b]) => order(a, b))
          expect([...buffer.upTo(BigInt(bound))].map(plain)).toEqual(
            due.map(([[wall, logical, table, , key], value]) => `${wall}.${logical} ${table} ${key} ${value}`),
          )
          for (const [[wall, logical, table, length, key]] of due) model.delete(JSON.stringify([wall, logical, table, length, key]))
        }
        buffer.clear()
        expect(readdirSync(dir)).toEqual([])
      }),
      { numRuns: 150 },
    )
  })

  test('a row larger than what is read at once comes whole from its file', () => {
    using buffer = new OrderBuffer(dir, 1000)
    const large = Buffer.alloc(300_000, 'x')
    for (const wall of [3n, 1n, 2n]) buffer.add({ wall, logical: 0 }, 't', Buffer.from('k'), large)
    expect(readdirSync(dir).length).toBeGreaterThan(0)
    expect([...buffer.upTo(2n)].map(({ at, value }) => [at.wall, value.equals(large)])).toEqual([
      [1n, true],
      [2n, true],
    ])
    expect([...buffer.upTo(9n)].length).toBe(1)
    expect([readdirSync(dir), buffer.bytes]).toEqual([[], 0])
  })
})
