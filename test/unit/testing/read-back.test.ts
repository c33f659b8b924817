import { expect, test } from 'vitest'
import type { ChangeEvent } from '../../../core/event/change-event.ts'
import { UNCHANGED } from '../../../core/event/table-schema.ts'
import type { Item } from '../../../testing/source/source-driver.ts'
import { expectRest, isReadBack } from '../../../testing/source/stream-cases.ts'
import { Oracle } from '../../../testing/source/workload.ts'

const table = { namespace: 'n', name: 'items', columns: ['id', 'name', 'quantity', 'body'].map((name) => ({ name })) }
const item = (quantity: number, name: string): Item => ({ id: 1, name, quantity, body: 'b' })
const told = (op: 'c' | 'u', { id, name, quantity, body }: Item) =>
  ({ kind: 'row', op, table, key: [1], after: [id, name, quantity, body] }) as unknown as ChangeEvent
const part = (quantity: number) => ({ kind: 'row', op: 'u', table, key: [1], after: [1, UNCHANGED, quantity, UNCHANGED] }) as unknown as ChangeEvent
const deleted = { kind: 'row', op: 'd', table, key: [1], after: null } as unknown as ChangeEvent

function wanted(isDeleted: boolean) {
  const oracle = new Oracle({})
  oracle.apply([
    { op: 'insert', table: 'items', row: item(1, 'a') },
    { op: 'update', table: 'items', id: 1, set: { quantity: 2 } },
    { op: 'update', table: 'items', id: 1, set: { quantity: 3 } },
    ...(isDeleted ? [{ op: 'delete', table: 'items', id: 1 } as const] : []),
  ])
  return oracle.changes
}

test('a change may come with a later state of its row, and neither be missing nor come twice', () => {
  const all = wanted(false)
  expect(isReadBack([told('c', item(1, 'a')), part(2), part(3)], all)).toBe(true)
  expect(isReadBack([told('u', item(3, 'a')), part(2), part(3)], all)).toBe(true)
  expect(isReadBack([told('c', item(1, 'a')), told('u', item(3, 'a')), part(3)], all)).toBe(true)
  expect(isReadBack([told('c', item(1, 'a')), part(3)], all)).toBe(false)
  expect(isReadBack([told('c', item(1, 'a')), part(2), part(2), part(3)], all)).toBe(false)
  // a part is no row that was read, and no row was ever like this
  expect(isReadBack([told('c', item(1, 'a')), part(3), part(3)], all)).toBe(false)
  expect(isReadBack([told('u', item(3, 'z')), part(2), part(3)], all)).toBe(false)
  // nothing older is read
  expect(isReadBack([told('c', item(1, 'a')), told('u', item(1, 'a')), part(3)], all)).toBe(false)
})

test('a row that was gone when it was read ends with a deletion, once', () => {
  const all = wanted(true)
  expect(isReadBack([told('c', item(1, 'a')), part(2), part(3), deleted], all)).toBe(true)
  expect(isReadBack([told('c', item(1, 'a')), deleted], all)).toBe(true)
  expect(isReadBack([told('c', item(1, 'a')), deleted, part(3), deleted], all)).toBe(true)
  expect(isReadBack([told('c', item(1, 'a')), part(2), part(3)], all)).toBe(false)
  expect(isReadBack([told('c', item(1, 'a')), deleted, part(3)], all)).toBe(false)
})

test('the rest after an offset begins where it did, though a change of a row that was gone when it was read is left out', () => {
  const oracle = new Oracle({})
  const position = (ordinal: number) => ({ position: { commit: 1n, ordinal } })
  const of = (id: number, change: ChangeEvent, ordinal: number) => ({ ...change, key: [id], ...position(ordinal) }) as ChangeEvent
  oracle.apply([
    { op: 'insert', table: 'items', row: item(1, 'a') },
    { op: 'insert', table: 'items', row: { ...item(1, 'a'), id: 3 } },
    { op: 'update', table: 'items', id: 1, set: { quantity: 2 } },
    { op: 'update', table: 'items', id: 3, set: { quantity: 2 } },
    { op: 'delete', table: 'items', id: 3 },
  ])
  const can = { readsBack: true }
  // resumed after the inserts: row 3 is read for its update, and is gone
  const rest = [of(1, part(2), 1), of(3, deleted, 2)]
  expect(expectRest(rest, oracle, 2, can)).toBe(2)
  for (const [wrong, most] of [
    [rest.slice(1), 2],
    [rest.slice(0, 1), 2],
    [[...rest, of(1, part(2), 3)], 2],
  ] as const)
    expect(() => expectRest(wrong, oracle, most, can)).toThrow()
  // a source that reads nothing back leaves nothing out
  expect(() => expectRest(rest, oracle, 2, {})).toThrow()
})
