/**
 * A stream whose bytes were damaged or put out of order on their way: what a real server sent, from a socket of our own. It ends with an error that says so; it does
 * not hang, crash, take memory for what never comes, or give another row than the server had.
 */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { AppliedTransactions } from '../../../../connectors/postgres/applied-transactions.ts'
import { ChangeStream } from '../../../../connectors/postgres/change-stream.ts'
import { parseLsn } from '../../../../connectors/postgres/lsn.ts'
import { postgresError } from '../../../../connectors/postgres/postgres-error.ts'
import { ReplicationConnection } from '../../../../connectors/postgres/replication-connection.ts'
import { describeTable } from '../../../../connectors/postgres/type-mapping.ts'
import { MillraceError } from '../../../../core/errors.ts'
import { runs } from '../../../fixed-seed.ts'
import { type RecordedChange, RecordingOutput } from '../../../integration/recording-output.ts'

interface Column {
  readonly table: number
  readonly name: string
  readonly type: number
  readonly modifier: number
}

/** What Postgres 18 sent for the same transactions, whole and (`streamed`) in pieces while they ran: LSN and message; and the columns of its tables. */
const recorded = JSON.parse(readFileSync(new URL('./recorded-stream.json', import.meta.url), 'utf8')) as Readonly<
  Record<'whole' | 'streamed', readonly (readonly [lsn: string, hex: string])[]> & { columns: readonly Column[] }
>
type Form = 'whole' | 'streamed'
const FORMS: readonly Form[] = ['whole', 'streamed']

const LIMIT_MS = 20_000
/** More than the two megabytes that the socket fills, and what a script of some kilobytes may need beside them. */
const ROOM = 6_000_000

const XLOG_HEADER = 30
const frame = (type: string, body: Buffer): Buffer => {
  const head = Buffer.alloc(5)
  head.write(type, 'latin1')
  head.writeInt32BE(body.length + 4, 1)
  return Buffer.concat([head, body])
}
const big = (...values: readonly bigint[]) => {
  const bytes = Buffer.alloc(8 * values.length)
  for (const [i, value] of values.entries()) bytes.writeBigUInt64BE(value, 8 * i)
  return bytes
}
const xlog = (lsn: bigint, message: Buffer) => frame('d', Buffer.concat([Buffer.from('w'), big(lsn, lsn, 0n), message]))
const keepalive = (lsn: bigint) => frame('d', Buffer.concat([Buffer.from('k'), big(lsn, 0n), Buffer.from([0])]))

const scriptOf = (form: Form): readonly Buffer[] => recorded[form].map(([lsn, hex]) => xlog(parseLsn(lsn), Buffer.from(hex, 'hex')))

/** The first of its kind. */
const recordedMessage = (tag: string) => Buffer.from(recorded.whole.find(([, message]) => message.startsWith(Buffer.from(tag).toString('hex')))![1], 'hex')

/** What is sent to whoever starts to stream. */
let send: (socket: net.Socket) => void = () => {}
const server = net.createServer((socket) => {
  socket.on('error', () => {})
  // the startup message, then START_REPLICATION; status after that
  socket.once('data', () => {
    socket.write(Buffer.concat([frame('R', Buffer.alloc(4)), frame('Z', Buffer.from('I'))]))
    socket.once('data', () => {
      socket.write(frame('W', Buffer.alloc(3)))
      send(socket)
      socket.resume()
    })
  })
})

let dir: string
beforeAll(async () => {
  dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-stream-'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterAll(() => {
  server.close()
  rmSync(dir, { recursive: true, force: true })
})

/** The catalog of the server that was recorded, as far as it is asked. */
const catalog = {
  async query(sql: string, values: readonly (readonly number[])[]) {
    if (sql.includes('relreplident')) {
      const own = recorded.columns.filter(({ table }) => table === values[0]![0])
      return {
        rows: own.map(({ table, name, type, modifier }, i) => ({
          ...{ oid: table, namespace: 'public', name: 't', identity: 'd', attnum: i + 1, attname: name, type, modifier, formatted: 'known', not_null: i === 0 },
          ...{ toastable: true, generated: false, dimensions: 0, dropped: false, in_primary: i === 0, in_identity: i === 0 },
        })),
      }
    }
    if (sql.includes('with ordinality')) return { rows: values[0]!.map(() => ({ formatted: 'another', toastable: true })) }
    return { rows: sql.includes('scale(') ? [{ scale: 2 }] : [] }
  },
} as unknown as pg.ClientBase

interface Played {
  readonly changes: readonly RecordedChange[]
  readonly error: unknown
  /** The largest buffer that was held. */
  readonly room: number
}

async function play(sent: (socket: net.Socket) => void, silenceMs = LIMIT_MS): Promise<Played> {
  send = sent
  const { port } = server.address() as net.AddressInfo
  const config = { host: '127.0.0.1', port, user: 'u', database: 'd' }
  const output = new RecordingOutput()
  let room = 0
  await using connection = await ReplicationConnection.connect({ config, onNotice: () => {}, statusIntervalMs: 10_000, silenceMs })
  try {
    await connection.start('START_REPLICATION', (error) => postgresError(error, 'while streaming'))
    const stream = new ChangeStream({
      connection,
      output,
      start: 0n,
      spillDir: dir,
      node: 'n',
      applied: new AppliedTransactions([]),
      isCaptured: () => true,
      describe: (oid, streamed) => describeTable(catalog, oid, { unrepresentable: 'text' }, streamed),
      select: async () => null,
    })
    for await (const _ of stream.run(AbortSignal.timeout(LIMIT_MS))) room = Math.max(room, connection.bytes.length)
  } catch (error) {
    return { changes: output.changes, error, room: Math.max(room, connection.bytes.length) }
  }
  throw new Error('it hung')
}

const playBytes = (...bytes: readonly Buffer[]) => play((socket) => socket.end(Buffer.concat(bytes)))

/** The stream ended as a stream may; the server's own end counts. */
function expectOrderlyEnd({ error, room }: Played): void {
  expect(error).toBeInstanceOf(MillraceError)
  const { code, category } = error as MillraceError
  expect([code, category === 'bug']).toEqual([code, false])
  expect(room).toBeLessThan(ROOM)
}

const plain = (value: unknown) => JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' || typeof inner === 'symbol' ? String(inner) : inner))
type Content = Pick<RecordedChange, 'table' | 'op' | 'key' | 'before' | 'after'>
const contents = ({ table, op, key, before, after }: Content) => plain({ table, op, key, before, after })

/** Rows of transactions, and of a savepoint, that were rolled back: they are in the recording. */
const ROLLED_BACK: readonly Content[] = [
  { table: 'public.f', op: 'c', after: { id: 11, v: 's11' } },
  { table: 'public.f', op: 'c', after: { id: 32, v: 'p32' } },
  { table: 'public.t', op: 'c', after: { id: 20, name: 's20', n: 20n, price: 2000n, at: null, doc: null } },
]

describe.each(FORMS)('a recorded stream (%s)', (form) => {
  const script = scriptOf(form)
  let whole: readonly RecordedChange[]

  beforeAll(async () => {
    const played = await playBytes(...script)
    expect(played.error).toMatchObject({ code: 'source.unreachable', message: expect.stringContaining('ended') })
    whole = played.changes
  })

  it('is the same in whatever pieces it comes', async () => {
    expect(whole.length).toBeGreaterThan(15)
    expect(new Set(whole.map(({ op }) => op))).toEqual(new Set(['c', 'u', 'd', 't']))
    const bytes = Buffer.concat(script)
    for (const size of [1, 7, 300]) {
      const { changes } = await play((socket) => {
        socket.setNoDelay(true)
        let at = 0
        const next = () => {
          if (at >= bytes.length) return socket.end()
          socket.write(bytes.subarray(at, at + size), () => setImmediate(next))
          at += size
        }
        next()
      })
      expect(changes).toEqual(whole)
    }
  })

  it('out of order, gives an error or changes that the server had', async () => {
    const moves = fc.array(fc.record({ kind: fc.constantFrom('move', 'drop', 'repeat'), at: fc.nat(), to: fc.nat() }), { minLength: 1, maxLength: 4 })
    const known = new Set([...whole, ...ROLLED_BACK].map(contents))
    let refused = 0
    await fc.assert(
      fc.asyncProperty(moves, async (all) => {
        const messages = [...script]
        for (const { kind, at, to } of all) {
          const from = at % messages.length
          const [message] = kind === 'repeat' ? [messages[from]!] : messages.splice(from, 1)
          if (kind !== 'drop') messages.splice(to % (messages.length + 1), 0, message!)
        }
        const played = await playBytes(...messages)
        expectOrderlyEnd(played)
        if ((played.error as MillraceError).code !== 'source.unreachable') refused++
        // a logical message out of its block reads as another: its bytes do not tell
        for (const change of played.changes) if (change.table !== 'millrace.message') expect(known).toContain(contents(change))
      }),
      { numRuns: runs(250) },
    )
    expect(refused).toBeGreaterThan(runs(250) / 2)
  })

  it('with a bit of its framing turned, gives what came before and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.nat(XLOG_HEADER - 1), fc.nat(7), async (which, at, bit) => {
        const messages = script.map((message) => Buffer.from(message))
        messages[which % messages.length]![at]! ^= 1 << bit
        const played = await playBytes(...messages)
        expectOrderlyEnd(played)
        expect(played.changes).toEqual(whole.slice(0, played.changes.length))
        if ((played.error as MillraceError).code !== 'source.unreachable') expect((played.error as MillraceError).code).toBe('source.protocol')
      }),
      { numRuns: runs(250) },
    )
  })

  it('with any bytes changed, ends in order', async () => {
    const damage = fc.array(fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) }), { minLength: 1, maxLength: 4 })
    await fc.assert(
      fc.asyncProperty(damage, async (changes) => {
        const bytes = Buffer.concat(script)
        for (const { at, to } of changes) bytes[at % bytes.length] = to
        expectOrderlyEnd(await playBytes(bytes))
      }),
      { numRuns: runs(400) },
    )
  })
})

describe('a message that is said to be large', () => {
  const claimed = (length: number) => {
    const head = Buffer.from('d....')
    head.writeInt32BE(length, 1)
    return head
  }

  it('is given up when next to nothing comes of it', async () => {
    let beats: NodeJS.Timeout | undefined
    const played = await play((socket) => {
      socket.write(claimed(1_000_000_000))
      beats = setInterval(() => socket.write(keepalive(1n)), 50)
      socket.on('close', () => clearInterval(beats))
    }, 400)
    expect(played.error).toMatchObject({ code: 'source.unreachable', message: expect.stringContaining('has not ended a message') })
    expectOrderlyEnd(played)
  })

  it('is read to its end over a link that carries little more than a segment within the limit of silence', async () => {
    const [begin, origin, commit] = [
      recordedMessage('B'),
      Buffer.concat([Buffer.from('O'), big(1n), Buffer.alloc(6000, 'o'), Buffer.alloc(1)]),
      recordedMessage('C'),
    ]
    const bytes = Buffer.concat([begin, origin, commit].map((message) => xlog(1n, message)))
    let beats: NodeJS.Timeout | undefined
    const { error } = await play((socket) => {
      let at = 0
      beats = setInterval(() => {
        if (at >= bytes.length) socket.end()
        else socket.write(bytes.subarray(at, at + 600))
        at += 600
      }, 150)
      socket.on('close', () => clearInterval(beats))
    }, 400)
    expect(error).toMatchObject({ code: 'source.unreachable', message: expect.stringContaining('ended the replication connection') })
  })

  it('takes no more room than twice what came of it', async () => {
    const came = 5_000_000
    const { error, room } = await playBytes(claimed(1_000_000_000), Buffer.alloc(came))
    expect(error).toMatchObject({ code: 'source.unreachable' })
    expect(room).toBeLessThan(2 * came + ROOM)
  })

  it('is read when it is', async () => {
    const [begin, relation, commit] = [recordedMessage('B'), recordedMessage('R'), recordedMessage('C')]
    const text = Buffer.alloc(20_000_000, 'z')
    const count = relation.readUInt16BE(relation.indexOf(0, relation.indexOf(0, 5) + 1) + 2)
    const value = (bytes: Buffer) => Buffer.concat([Buffer.from('t'), Buffer.from(new Uint32Array([bytes.length]).buffer).swap32(), bytes])
    const columns = [value(Buffer.from('1')), value(text), ...Array.from({ length: count - 2 }, () => Buffer.from('n'))]
    const insert = Buffer.concat([Buffer.from('I'), relation.subarray(1, 5), Buffer.from('N'), Buffer.from([0, count]), ...columns])
    const { changes } = await playBytes(...[begin, relation, insert, commit].map((message) => xlog(1n, message)))
    expect(changes.map(({ after }) => [after!.id, (after!.name as string).length])).toEqual([[1, text.length]])
  })
})
