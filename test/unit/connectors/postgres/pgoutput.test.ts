import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { KIND, OLD_KEY, OLD_ROW, PgoutputDecoder, TAG } from '../../../../connectors/postgres/pgoutput.ts'
import { MillraceError } from '../../../../core/errors.ts'
import { runs } from '../../../fixed-seed.ts'

interface Recorded {
  /** Protocol 1 text; protocol 4 binary with streaming and two_phase; protocol 4 text with streaming 'parallel'. */
  readonly source: 'v1' | 'bin' | 'par'
  readonly tag: string
  readonly inStream: boolean
  readonly hex: string
}

/** What a real Postgres 18 sent, by pg_logical_slot_get_binary_changes. */
const recorded = JSON.parse(readFileSync(new URL('./pgoutput-messages.json', import.meta.url), 'utf8')) as Recorded[]

function decode(bytes: Buffer, inStream: boolean): PgoutputDecoder {
  const decoder = new PgoutputDecoder()
  // in the middle of a larger buffer, as messages lie in the socket's
  const around = Buffer.concat([Buffer.alloc(7, 0xee), bytes, Buffer.alloc(64, 0x6e)])
  decoder.decode(around, new DataView(around.buffer, around.byteOffset, around.length), 7, 7 + bytes.length, inStream, 0x16_b374_d848)
  return decoder
}

const find = (source: Recorded['source'], tag: string, nth = 0) => {
  const message = recorded.filter((one) => one.source === source && one.tag === tag)[nth]!
  return decode(Buffer.from(message.hex, 'hex'), message.inStream)
}

describe('pgoutput', () => {
  it('decodes every kind of message that a server sends', () => {
    for (const message of recorded) {
      const decoder = decode(Buffer.from(message.hex, 'hex'), message.inStream)
      expect(String.fromCharCode(decoder.tag)).toBe(message.tag)
    }
    expect(new Set(recorded.map((message) => message.tag.charCodeAt(0)))).toEqual(new Set(Object.values(TAG).filter((tag) => tag !== TAG.origin)))
  })

  it('reads relations, keys and old rows', () => {
    const relation = find('bin', 'R').relation!
    expect(relation.namespace).toBe('public')
    expect(relation.name).toBe('t')
    expect(relation.replicaIdentity).toBe('d')
    expect(relation.columns.map(({ name, typeModifier, key }) => ({ name, typeModifier, key }))).toEqual([
      { name: 'id', typeModifier: -1, key: true },
      { name: 'name', typeModifier: -1, key: false },
      { name: 'm', typeModifier: -1, key: false },
      { name: 'big', typeModifier: -1, key: false },
    ])
    expect(find('bin', 'U').oldKind).toBe(0)
    expect(find('bin', 'U', 1).oldKind).toBe(OLD_KEY)
    expect(find('bin', 'U', 2).oldKind).toBe(OLD_ROW)
    expect(find('bin', 'D').oldKind).toBe(OLD_KEY)
    expect(find('bin', 'D', 1).oldKind).toBe(OLD_ROW)
  })

  it('reads messages, commits, prepared transactions and the xids of a stream', () => {
    const message = recorded.find((one) => one.source === 'bin' && one.tag === 'M')!
    const bytes = Buffer.from(message.hex, 'hex')
    const decoder = new PgoutputDecoder()
    decoder.decode(bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length, false, 0)
    expect([decoder.prefix, bytes.toString('utf8', decoder.contentAt, decoder.contentEnd)]).toEqual(['pre', decoder.transactional ? 'tx' : 'notx'])
    const commit = find('v1', 'C')
    expect(commit.endLsn > commit.lsn).toBe(true)
    expect(Math.abs(Number(commit.timestamp / 1000n) - Date.UTC(2026, 10, 23))).toBeLessThan(2 * 86_400_000)
    expect(['b', 'P', 'K'].map((tag) => find('bin', tag).gid)).toEqual(['g1', 'g1', 'g1'])
    expect([find('bin', 'p').gid, find('bin', 'r').gid]).toEqual(['g3', 'g2'])
    const start = find('bin', 'S')
    const abort = find('bin', 'A')
    expect(start.firstSegment).toBe(true)
    expect(start.xid).toBeGreaterThan(0)
    expect(abort.subXid).toBeGreaterThan(0)
    expect(find('par', 'A').xid).toBeGreaterThan(0)
  })

  it('reads an xid and an oid above 2^31 as unsigned', () => {
    const bytes = Buffer.from([TAG.insert, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xfd, 78, 0, 1, KIND.null])
    const decoder = decode(bytes, true)
    expect([decoder.xid, decoder.relationOid]).toEqual([0xffff_fffe, 0xffff_fffd])
  })

  const cases = fc.constantFrom(...recorded)

  it('refuses every message that was cut off, and one with bytes too many', () => {
    fc.assert(
      fc.property(cases, fc.nat(), (message, cut) => {
        const bytes = Buffer.from(message.hex, 'hex')
        const length = cut % bytes.length
        // a stream abort has two legal forms: of 9 bytes, and with 16 more
        if (message.tag !== 'A' || length !== 9) expectProtocolError(() => decode(bytes.subarray(0, length), message.inStream))
        if (message.tag !== 'A') expectProtocolError(() => decode(Buffer.concat([bytes, Buffer.alloc(1 + (cut % 20))]), message.inStream))
      }),
      { numRuns: runs(2000) },
    )
  })

  it('survives any damage: decodes within the message or throws source.protocol', () => {
    const damage = fc.array(fc.record({ at: fc.nat(), to: fc.integer({ min: 0, max: 255 }) }), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(cases, damage, fc.boolean(), (message, changes, inStream) => {
        const bytes = Buffer.from(message.hex, 'hex')
        for (const { at, to } of changes) bytes[at % bytes.length] = to
        const decoder = new PgoutputDecoder()
        try {
          decoder.decode(bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length, inStream, 0)
        } catch (error) {
          expectProtocol(error)
          return
        }
        for (const at of [decoder.oldAt, decoder.newAt]) expect(at).toBeLessThan(bytes.length)
      }),
      { numRuns: runs(5000) },
    )
  })

  it('survives arbitrary bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), fc.constantFrom(...Object.values(TAG)), (noise, tag) => {
        const bytes = Buffer.from([tag, ...noise])
        try {
          decode(bytes, false)
        } catch (error) {
          expectProtocol(error)
        }
      }),
      { numRuns: runs(5000) },
    )
  })

  it('names the message and its place in the WAL', () => {
    expect(() => decode(Buffer.from('I\0\0'), false)).toThrow("'I' at 16/B374D848")
  })
})

function expectProtocolError(run: () => unknown): void {
  let thrown: unknown
  try {
    run()
  } catch (error) {
    thrown = error
  }
  expectProtocol(thrown)
}

function expectProtocol(error: unknown): void {
  expect(error).toBeInstanceOf(MillraceError)
  expect((error as MillraceError).code).toBe('source.protocol')
}
