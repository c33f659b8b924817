import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { readBatch } from '../../../../connectors/cockroachdb/webhook-endpoint.ts'
import { releasedOf, WebhookJournal } from '../../../../connectors/cockroachdb/webhook-journal.ts'
import { VEHICLE } from './documents.ts'

let dir = ''
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'journal-'))
})
afterEach(() => rmSync(dir, { recursive: true, force: true }))

const row = (name: string) => ({ table: 'shop.public.items', key: Buffer.from('[1]'), value: Buffer.from(name) })
const replayed = (journal: WebhookJournal) => [...journal.replay()].flat().map(({ table, key, value }) => `${table} ${key} ${value}`)
const plain = (name: string) => `shop.public.items [1] ${name}`
const segments = () => readdirSync(dir).filter((name) => name.endsWith('.rows'))

test('gives back what was appended, and no segment whose rows are in the log', () => {
  {
    using journal = new WebhookJournal(dir)
    journal.append([row('a'), row('b')], 5n)
    journal.append([row('c')], 7n)
    journal.release(6n)
    expect(segments()).toHaveLength(1)
    expect(releasedOf(dir)).toBe(0n)
  }
  {
    using journal = new WebhookJournal(dir)
    expect(replayed(journal)).toEqual(['a', 'b', 'c'].map(plain))
    journal.append([row('d')], 9n)
    journal.release(8n)
    expect(releasedOf(dir)).toBe(7n)
  }
  using journal = new WebhookJournal(dir)
  expect(replayed(journal)).toEqual([plain('d')])
  journal.release(9n)
  expect(segments()).toEqual([])
  expect(releasedOf(dir)).toBe(9n)
})

test('a batch that was not written to its end is cut off, at every byte', () => {
  {
    using journal = new WebhookJournal(dir)
    journal.append([row('whole')], 1n)
  }
  const file = path.join(dir, segments()[0]!)
  const whole = statSync(file).size
  {
    using journal = new WebhookJournal(dir)
    journal.append([row('torn')], 2n)
  }
  const second = path.join(dir, segments()[1]!)
  const torn = readFileSync(second)
  rmSync(second)
  for (let end = 0; end < torn.length; end++) {
    appendFileSync(file, torn.subarray(0, end))
    using journal = new WebhookJournal(dir)
    expect(replayed(journal)).toEqual([plain('whole')])
    expect(statSync(file).size).toBe(whole)
  }
  // a disk that had grown the file and not filled it
  appendFileSync(file, Buffer.alloc(4096))
  expect(replayed(new WebhookJournal(dir))).toEqual([plain('whole')])
})

test('a damaged batch among others is an error with its place', () => {
  {
    using journal = new WebhookJournal(dir)
    journal.append([row('one')], 1n)
    journal.append([row('two')], 2n)
  }
  const file = path.join(dir, segments()[0]!)
  const bytes = readFileSync(file)
  for (const at of [4, 9, 20]) {
    const damaged = Buffer.from(bytes)
    damaged[at] = damaged[at]! ^ 1
    writeFileSync(file, damaged)
    expect(() => new WebhookJournal(dir)).toThrow(/is damaged at byte 0/)
  }
  writeFileSync(file, bytes)
  truncateSync(file, bytes.length - 3)
  // it is not the last segment: nothing may be missing there
  writeFileSync(path.join(dir, '1.rows'), '')
  expect(() => new WebhookJournal(dir)).toThrow(/is damaged at byte/)
})

test('batches as they are documented', () => {
  const { messages, latest, resolved } = readBatch(`{"payload":[${VEHICLE}],"length":1}`)
  expect(messages.map(({ table, key }) => [table, String(key)])).toEqual([['vehicles', '["rome","d7b18299-c0c4-4304-9ef7-05ae46fd5ee1"]']])
  expect([latest, resolved]).toEqual([1_629_813_621_680_097_993n, null])
  expect(readBatch('{"resolved":"1629813621680097993.0000000000"}')).toMatchObject({ resolved: 1_629_813_621_680_097_993n, messages: [{ table: null }] })
})
