import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { writeRow } from '../../../../connectors/mysql/result-rows.ts'
import * as datetime from '../../../../connectors/mysql/type-datetime.ts'
import type { MappedTable } from '../../../../connectors/mysql/type-mapping.ts'
import * as numbers from '../../../../connectors/mysql/type-number.ts'
import type { TypeReader, WireReader } from '../../../../connectors/mysql/type-reader.ts'
import * as texts from '../../../../connectors/mysql/type-text.ts'
import { SingleValue } from '../../../../core/event/value-writer.ts'
import { type MillraceError, type Value, viewOf } from '../../../../core/plugin.ts'
import { runs } from '../../../fixed-seed.ts'
import { RecordingWriter } from '../postgres/recording-writer.ts'

const single = new SingleValue()

/** A type, a value of it in a row event, the same in a row of a result, and whether other lengths may be values, too. */
type Sample = readonly [name: string, reader: TypeReader, binlog: string, result: string, lengths: 'one' | 'several']

const SAMPLES: readonly Sample[] = [
  ['bigint', numbers.bigint, '0700000000000000', '0700000000000000', 'one'],
  ['unsigned bigint', numbers.unsignedBigint, '0700000000000000', '0700000000000000', 'one'],
  ['float', numbers.float, '0000c03f', '0000c03f', 'one'],
  ['double', numbers.double, '000000000000f83f', '000000000000f83f', 'one'],
  ['year', numbers.year, '7e', 'ea07', 'one'],
  ['bit(1)', numbers.bit(1), '01', '01', 'one'],
  ['bit(10)', numbers.bit(10), '0201', '0201', 'one'],
  ['decimal(10, 2)', numbers.decimal(10, 2), '8000000107', '312e3037', 'several'],
  ['decimal(30, 2)', numbers.decimal(30, 2), `80${'00'.repeat(11)}0107`, '312e3037', 'several'],
  ['date', datetime.date, '21d40f', 'ea070101', 'one'],
  ['datetime(3)', datetime.datetime(3), '99b94300000010', 'ea070101040506', 'one'],
  ['timestamp(6)', datetime.timestamp(6), '6500000001e240', 'ea07010104050640e20100', 'one'],
  ['time(2)', datetime.time(2), '80413210', '0000000000040506', 'one'],
  ['enum', texts.enumeration(['a', 'b'], 'utf8mb4', null), '02', '62', 'several'],
  ['set', texts.set(['a', 'b'], 'utf8mb4', null), '03', '612c62', 'several'],
  ['binary(3)', texts.fixedBinary(3), '0102', '010200', 'several'],
  ['vector', texts.vector, '0000c03f', '0000c03f', 'several'],
  ['MariaDB uuid', texts.mariadbUuid, 'ab'.repeat(16), '61', 'several'],
  ['MariaDB inet4', texts.mariadbInet4, '7f000001', '61', 'several'],
  ['MariaDB inet6', texts.mariadbInet6, 'ab'.repeat(16), '61', 'several'],
  ['json', texts.json, '050700', '7b7d', 'several'],
]

/** What is read at `at`; null where it is refused, which who walks the row places. */
function outcome(read: WireReader, bytes: Buffer, at: number, length: number): { readonly value: Value } | null {
  try {
    read(bytes, viewOf(bytes), at, length, single)
    return { value: single.taken }
  } catch (error) {
    if (!(error instanceof RangeError)) expect((error as MillraceError).code).toBe('source.protocol')
    return null
  }
}

describe('a value of MySQL between those of other columns', () => {
  it.each(SAMPLES)('%s is read in both forms, and of another length only where its type has several', (_name, reader, binlog, result, lengths) => {
    for (const [read, hex] of [
      [reader.binlog, binlog],
      [reader.result, result],
    ] as const) {
      const bytes = Buffer.from(hex, 'hex')
      expect(outcome(read, bytes, 0, bytes.length)).not.toBeNull()
    }
    if (lengths === 'several') return
    const among = Buffer.concat([Buffer.from(binlog, 'hex'), Buffer.alloc(16)])
    for (let length = 0; length < among.length; length++) if (length !== binlog.length / 2) expect(outcome(reader.binlog, among, 0, length)).toBeNull()
  })

  it.each(['binlog', 'result'] as const)('takes nothing from them in a %s', (form) => {
    const bytes = fc.uint8Array({ maxLength: 20 })
    fc.assert(
      fc.property(fc.constantFrom(...SAMPLES), bytes, bytes, fc.nat(24), fc.boolean(), ([, reader, binlog, result], noise, after, cut, isNoise) => {
        const value = isNoise ? Buffer.from(noise) : Buffer.from(form === 'binlog' ? binlog : result, 'hex')
        const among = Buffer.concat([Buffer.from('ab'), value, after])
        const length = Math.min(cut, among.length - 2)
        const alone = Buffer.from(among.subarray(2, 2 + length))
        expect(outcome(reader[form], among, 2, length)).toEqual(outcome(reader[form], alone, 0, length))
      }),
      { numRuns: runs(4000) },
    )
  })

  it('fills its row of a result, no more and no less', () => {
    const columns = ['id', 'v'].map((name, i) => ({
      name,
      id: i,
      type: { kind: 'string' } as const,
      sourceType: 'text',
      nullable: true,
      mayBeUnchanged: false,
      maybeSpecial: false,
    }))
    const table = { namespace: 'shop', name: 't', columns, key: [] }
    const mapped = { table, readers: [texts.utf8Text, texts.utf8Text] } as unknown as MappedTable
    const row = Buffer.from('000001610262630568656c6c6f', 'hex')
    const write = (end: number) => {
      const writer = new RecordingWriter(table)
      writer.row()
      writeRow(mapped, [-2, -2], row, viewOf(row), 0, end, writer)
      return writer.rows
    }
    expect(write(7)).toEqual([['a', 'bc']])
    for (const end of [5, 6, 8, row.length]) {
      expect(() => write(end)).toThrow(expect.objectContaining({ code: 'source.protocol', message: 'column v of a row of shop.t does not read as its type' }))
    }
  })
})
