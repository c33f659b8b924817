import type { ColumnType, Value } from '../core/event/table-schema.ts'

/** Values at the ends of what each kind of column holds, for round trips through codecs and targets. */
export const EXTREMES: readonly { readonly name: string; readonly type: ColumnType; readonly values: readonly Value[] }[] = [
  { name: 'boolean', type: { kind: 'boolean' }, values: [true, false] },
  { name: 'int32', type: { kind: 'int32' }, values: [0, -1, 2147483647, -2147483648] },
  { name: 'int64', type: { kind: 'int64' }, values: [0n, -1n, 2n ** 53n, 2n ** 53n + 1n, 2n ** 63n - 1n, -(2n ** 63n)] },
  {
    name: 'float32',
    type: { kind: 'float32' },
    values: [0, -0, Math.fround(0.1), Math.fround(3.4028234663852886e38), 1.401298464324817e-45, Number.NaN, Infinity, -Infinity],
  },
  { name: 'float64', type: { kind: 'float64' }, values: [0, -0, 0.1, Number.MAX_VALUE, Number.MIN_VALUE, Number.NaN, Infinity, -Infinity] },
  { name: 'decimal(38,10)', type: { kind: 'decimal', precision: 38, scale: 10 }, values: [0n, 1n, -1n, 10n ** 38n - 1n, -(10n ** 38n - 1n)] },
  { name: 'decimal(9,0)', type: { kind: 'decimal', precision: 9, scale: 0 }, values: [0n, 999_999_999n, -999_999_999n] },
  { name: 'decimal(18,18)', type: { kind: 'decimal', precision: 18, scale: 18 }, values: [0n, -1n, 10n ** 18n - 1n] },
  {
    name: 'string',
    type: { kind: 'string' },
    values: ['', ' ', '\u0001\t\n', '\\N', 'null', '"quoted"', "it's", 'ünïcödé 日本語 🜚', '\uFEFFbom', 'x'.repeat(100_000)],
  },
  { name: 'bytes', type: { kind: 'bytes' }, values: [new Uint8Array(0), Uint8Array.from({ length: 256 }, (_, n) => n)] },
  {
    name: 'uuid',
    type: { kind: 'uuid' },
    values: ['00000000-0000-0000-0000-000000000000', 'ffffffff-ffff-ffff-ffff-ffffffffffff', '3f2504e0-4f89-41d3-9a0c-0305e82c3301'],
  },
  { name: 'json', type: { kind: 'json' }, values: ['null', '{"a": 1.0,  "a": 2}', '"\\u0041"', '[9007199254740993]'] },
  { name: 'enum', type: { kind: 'enum', values: ['new', 'paid', 'Ünüsual one'] }, values: ['new', 'Ünüsual one'] },
  { name: 'date', type: { kind: 'date' }, values: [0, -1, 19_000, -2_440_588, 2_145_031_948] },
  { name: 'time', type: { kind: 'time' }, values: [0n, 1n, 86_399_999_999n] },
  { name: 'timestamp', type: { kind: 'timestamp' }, values: [0n, -1n, 1_700_000_000_123_456n, -210_866_803_200_000_000n, 9_223_371_331_199_999_999n] },
  { name: 'timestamptz', type: { kind: 'timestamptz' }, values: [0n, -1n, 1_700_000_000_123_456n, -210_866_803_200_000_000n, 9_223_371_331_199_999_999n] },
  { name: 'array of int64', type: { kind: 'array', element: { kind: 'int64' } }, values: [[], [1n, null, -(2n ** 63n)]] },
  { name: 'array of string', type: { kind: 'array', element: { kind: 'string' } }, values: [[], [''], ['a', null, '🜚']] },
  { name: 'array of arrays', type: { kind: 'array', element: { kind: 'array', element: { kind: 'int32' } } }, values: [[], [[]], [[1, null], null, [2]]] },
  {
    name: 'record',
    type: {
      kind: 'record',
      fields: [
        { name: 'street', type: { kind: 'string' } },
        { name: 'number', type: { kind: 'int64' } },
        { name: 'weight', type: { kind: 'decimal', precision: 10, scale: 3 } },
      ],
    },
    values: [
      [null, null, null],
      ['Main', 2n ** 60n, -1n],
    ],
  },
  {
    name: 'map',
    type: { kind: 'map' },
    values: [
      new Map(),
      new Map<string, string | null>([
        ['a', null],
        ['special', ''],
        ['', 'empty key'],
      ]),
    ],
  },
]
