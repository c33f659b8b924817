import fc from 'fast-check'
import type pg from 'pg'
import { describe, expect, it } from 'vitest'
import { TypeCatalog } from '../../../../connectors/postgres/type-catalog.ts'
import { arrayOf, hstore, multirangeOf, rangeOf, recordOf, vector } from '../../../../connectors/postgres/type-container.ts'
import { date, timestamptz } from '../../../../connectors/postgres/type-datetime.ts'
import { decimal, float8, int4, int8, money } from '../../../../connectors/postgres/type-number.ts'
import { formatValue, readValue, type TypeReader, textual, type WireReader } from '../../../../connectors/postgres/type-reader.ts'
import { text, uuid, versionedText } from '../../../../connectors/postgres/type-text.ts'
import { MillraceError, type Value, viewOf } from '../../../../core/plugin.ts'

const builtIn = await TypeCatalog.load(null as unknown as pg.ClientBase, [])

/** A type, a value of it as its send function writes it, and the same as its output function does. */
type Sample = readonly [name: string, reader: TypeReader, binary: string, text: string]

const oid = (oid: number) => builtIn.reader(oid, -1, 0)
const double = '3ff8000000000000'

/** Any other length is none of these types. */
const FIXED: readonly Sample[] = [
  ['boolean', oid(16), '01', 't'],
  ['"char"', oid(18), '61', 'a'],
  ['bigint', oid(20), '0000000000000007', '7'],
  ['smallint', oid(21), '0007', '7'],
  ['integer', oid(23), '00000007', '-7'],
  ['oid', oid(26), '00000007', '7'],
  ['tid', oid(27), '000000010002', '(1,2)'],
  ['xid', oid(28), '00000007', '7'],
  ['cid', oid(29), '00000007', '7'],
  ['point', oid(600), double.repeat(2), '(1.5,1.5)'],
  ['lseg', oid(601), double.repeat(4), '[(1.5,1.5),(1.5,1.5)]'],
  ['box', oid(603), double.repeat(4), '(1.5,1.5),(1.5,1.5)'],
  ['line', oid(628), double.repeat(3), '{1.5,1.5,1.5}'],
  ['real', oid(700), '3fc00000', '1.5'],
  ['double precision', oid(701), double, '1.5'],
  ['circle', oid(718), double.repeat(3), '<(1.5,1.5),1.5>'],
  ['macaddr8', oid(774), '0102030405060708', '01:02:03:04:05:06:07:08'],
  ['money', money(2), '0000000000000007', '$0.07'],
  ['macaddr', oid(829), '010203040506', '01:02:03:04:05:06'],
  ['date', oid(1082), '00000007', '2026-01-31'],
  ['infinite date', oid(1082), '7fffffff', 'infinity'],
  ['time', oid(1083), '0000000000000007', '00:00:00.000007'],
  ['timestamp', oid(1114), '0000000000000007', '2026-01-31 04:05:06'],
  ['timestamptz', oid(1184), '0000000000000007', '0044-03-15 12:00:00+00 BC'],
  ['infinite timestamptz', oid(1184), '8000000000000000', '-infinity'],
  ['interval', oid(1186), '00000000000000070000000100000002', 'P2M1DT0.000007S'],
  ['timetz', oid(1266), '000000000000000700000e10', '00:00:00.000007-01'],
  ['uuid', oid(2950), '0123456789abcdef0123456789abcdef', '01234567-89ab-cdef-0123-456789abcdef'],
  ['pg_lsn', oid(3220), '0000000100000002', '1/2'],
  ['xid8', oid(5069), '0000000000000007', '7'],
]

const list = arrayOf(int8, ',', 0)
const pair = recordOf([
  { name: 'a', reader: int8 },
  { name: 'b', reader: text },
])
const bigintPart = '000000080000000000000007'
const textPart = '000000026162'
const listBinary = `000000010000000000000014${'00000002'}00000001${bigintPart}${bigintPart}`
const pairBinary = `0000000200000014${bigintPart}00000019${textPart}`
const rangeBinary = `02${bigintPart}${bigintPart}`

/** Values that say themselves how long they are. */
const SELF_DESCRIBING: readonly Sample[] = [
  ['numeric', oid(1700), '000200000000000300010032', '1.005'],
  ['numeric(10, 3)', decimal(10, 3), '000200000000000300010032', '1.005'],
  ['wide numeric', decimal(38, 3), '0006000540000003000100020003000400050006', '-100020003000400050006.000'],
  ['NaN', decimal(10, 3), '00000000c0000000', 'NaN'],
  ['path', oid(602), `0100000002${double.repeat(4)}`, '((1.5,1.5),(1.5,1.5))'],
  ['polygon', oid(604), `00000002${double.repeat(4)}`, '((1.5,1.5),(1.5,1.5))'],
  ['inet', oid(869), '02200004c0a80101', '192.168.1.1'],
  ['cidr', oid(650), '0340011020010db8000000000000000000000000', '2001:db8::/64'],
  ['bit', oid(1560), '0000000aa540', '1010010101'],
  ['tsvector', oid(3614), '00000002610000006200000240050003', "'a' 'b':5B,3"],
  ['bigint[]', list, listBinary, '{7,7}'],
  ['bigint[][]', arrayOf(int8, ',', 2), `00000002000000000000001400000001000000010000000200000001${bigintPart}${bigintPart}`, '{{7,7}}'],
  ['uuid[]', arrayOf(uuid, ',', 0), `000000010000000100000b860000000200000001ffffffff00000010${'ab'.repeat(16)}`, '{NULL}'],
  ['record', pair, pairBinary, '(7,ab)'],
  ['record[]', arrayOf(pair, ',', 0), `00000001000000000000ffff0000000100000001${part(pairBinary)}`, '{"(7,ab)"}'],
  ['int8range', rangeOf(int8), rangeBinary, '[7,7)'],
  ['tstzrange', rangeOf(timestamptz), '08000000080000000000000007', '(,"2026-01-31 04:05:06+00")'],
  ['empty range', rangeOf(date), '01', 'empty'],
  ['int8multirange', multirangeOf(int8), `00000002${part(rangeBinary)}${part('01')}`, '{[7,7),empty}'],
  ['hstore', hstore, `00000002${textPart}${textPart}0000000161ffffffff`, '"ab"=>"ab", "a"=>NULL'],
  ['vector', vector, '000200003fc000003fc00000', '[1.5,1.5]'],
]

/** The rest of the bytes, whatever they are. */
const OPEN: readonly Sample[] = [
  ['text', oid(25), '6162', 'ab'],
  ['bytea', oid(17), '6162', '\\x6162'],
  ['escaped bytea', oid(17), '', 'a\\\\\\001'],
  ['json', oid(114), '7b7d', '{}'],
  ['jsonb', oid(3802), '017b7d', '{}'],
  ['jsonpath', oid(4072), '01242e61', '$."a"'],
  ['ltree', versionedText, '01612e62', 'a.b'],
  ['enum', textual('same', undefined, { kind: 'enum', values: ['ab'] }), '6162', 'ab'],
]

const SAMPLES = [...FIXED, ...SELF_DESCRIBING, ...OPEN]

function part(hex: string): string {
  return (hex.length / 2).toString(16).padStart(8, '0') + hex
}

/** What is read at `at`; null where it is refused as it has to be. */
function outcome(read: WireReader, bytes: Buffer, at: number, length: number): { readonly value: Value } | null {
  try {
    return { value: readValue(read, bytes, viewOf(bytes), at, length) }
  } catch (error) {
    expect(error).toBeInstanceOf(MillraceError)
    expect((error as MillraceError).code).toBe('source.protocol')
    return null
  }
}

const damage = fc.record({
  changes: fc.array(fc.record({ at: fc.nat(), to: fc.oneof(fc.constantFrom(0, 1, 0xff, 0x7f, 45, 105), fc.integer({ min: 0, max: 255 })) }), { maxLength: 3 }),
  // shorter, as it is, or longer by bytes of the next column
  cut: fc.oneof(fc.constant(0), fc.integer({ min: -40, max: 12 })),
  before: fc.uint8Array({ minLength: 1, maxLength: 3 }),
  after: fc.oneof(
    fc.uint8Array({ minLength: 12, maxLength: 40 }),
    fc.constantFrom(...SAMPLES).map(([, , hex]) => Buffer.from(hex.padEnd(24, '0'), 'hex')),
  ),
})

// I6
describe('a value between those of other columns', () => {
  it.each(SAMPLES)('%s is read from both forms', (_name, reader, binary, textForm) => {
    if (binary !== '') expect(outcome(reader.binary!, Buffer.from(binary, 'hex'), 0, binary.length / 2)).not.toBeNull()
    const read = outcome(reader.text, Buffer.from(textForm), 0, textForm.length)
    expect(read).not.toBeNull()
    expect(formatValue(reader, read!.value)).not.toBe('')
  })

  it.each([...FIXED, ...SELF_DESCRIBING])('%s of another length is refused', (_name, reader, binary) => {
    const bytes = Buffer.from(binary, 'hex')
    const among = Buffer.concat([bytes, Buffer.alloc(16, bytes)])
    for (let length = 0; length < among.length; length++) if (length !== bytes.length) expect(outcome(reader.binary!, among, 0, length)).toBeNull()
  })

  it.each(['binary', 'text'] as const)('whatever its %s bytes are, it takes nothing from them', (form) => {
    fc.assert(
      fc.property(fc.constantFrom(...SAMPLES), damage, ([, reader, binary, textForm], { changes, cut, before, after }) => {
        const value = form === 'binary' ? Buffer.from(binary, 'hex') : Buffer.from(textForm)
        for (const { at, to } of changes) if (value.length > 0) value[at % value.length] = to
        const length = Math.max(0, value.length + cut)
        const among = Buffer.concat([before, value, after])
        const alone = Buffer.from(among.subarray(before.length, before.length + length))
        expect(outcome(reader[form]!, among, before.length, length)).toEqual(outcome(reader[form]!, alone, 0, length))
      }),
      { numRuns: 6000 },
    )
  })

  it('keeps to its length inside of a container', () => {
    const wrong = `000000010000000000000014${'00000002'}00000001000000040000000700000010${'00'.repeat(7)}07${'00'.repeat(8)}`
    expect(outcome(list.binary!, Buffer.from(wrong, 'hex'), 0, wrong.length / 2)).toBeNull()
    const range = `0200000004000000070000000c${'00'.repeat(12)}`
    expect(outcome(rangeOf(float8).binary!, Buffer.from(range, 'hex'), 0, range.length / 2)).toBeNull()
    expect(outcome(rangeOf(int4).binary!, Buffer.from('02ffffffffffffffff', 'hex'), 0, 9)).toBeNull()
  })
})
