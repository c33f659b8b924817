/** Everything that CQL writes into a commit log, and every type at its extremes, in the keyspace `lab`. */
import type { Release } from '../cassandra-jvm.ts'

const DEFINITIONS = [
  "CREATE KEYSPACE lab WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}",
  'CREATE TYPE lab.place (street text, number int)',
  'CREATE TYPE lab."Address" (place frozen<place>, tags frozen<set<text>>, "Zip" smallint)',
  `CREATE TABLE lab.orders (customer text, id int, qty int, price decimal, note text, gone text, tags set<text>, st text static, ss set<int> static,
    PRIMARY KEY (customer, id)) WITH cdc = true`,
  'CREATE TABLE lab.plain (customer text, id int, v text, PRIMARY KEY (customer, id))',
  `CREATE TABLE lab.events (tenant uuid, day date, at timestamp, seq int, host inet, body text,
    PRIMARY KEY ((tenant, day), at, seq, host)) WITH CLUSTERING ORDER BY (at DESC, seq ASC, host DESC) AND cdc = true`,
  `CREATE TABLE lab.shapes (id int PRIMARY KEY, l list<int>, m map<text, int>, mt map<text, text>, s set<uuid>, u "Address", fl frozen<list<int>>, fm frozen<map<int, text>>,
    fu frozen<"Address">, t tuple<int, text, frozen<list<bigint>>>, deep map<text, frozen<list<frozen<place>>>>) WITH cdc = true`,
  'CREATE TABLE lab.hits (id int PRIMARY KEY, n counter, m counter) WITH cdc = true',
  `CREATE TABLE lab.every (id int PRIMARY KEY, a ascii, bi bigint, bl blob, bo boolean, da date, de decimal, dou double, du duration, f float, i inet, it int, si smallint,
    te text, ti time, ts timestamp, tu timeuuid, ty tinyint, u uuid, v varint) WITH cdc = true`,
  `CREATE TABLE lab.wide (p int, id int, ${Array.from({ length: 70 }, (_, i) => `c${i} int`).join(', ')}, words set<text>, PRIMARY KEY (p, id)) WITH cdc = true`,
  `CREATE TABLE lab.keys (${Array.from({ length: 36 }, (_, i) => `k${i} int`).join(', ')}, v int, PRIMARY KEY (k0, ${Array.from({ length: 35 }, (_, i) => `k${i + 1}`).join(', ')})) WITH cdc = true`,
]

/** For 5.0 */
const VECTORS = [
  'CREATE TABLE lab.vectors (id int PRIMARY KEY, v vector<float, 3>, w vector<text, 2>, l list<frozen<vector<int, 2>>>) WITH cdc = true',
  "INSERT INTO lab.vectors (id, v, w, l) VALUES (1, [1.5, -0.25, 3], ['a', 'bcd'], [[1, 2], [-3, 4]])",
  'UPDATE lab.vectors SET v = [0, 0, 1] WHERE id = 1',
]

const wide = (columns: readonly number[], id: number) =>
  `INSERT INTO lab.wide (p, id, ${columns.map((i) => `c${i}`).join(', ')}) VALUES (1, ${id}, ${columns.map((i) => i - 35).join(', ')})`
const WORDS = "UPDATE lab.wide SET words = {'w'} WHERE p = 1 AND id = 7"
const batch = (statements: readonly string[]) => `BEGIN UNLOGGED BATCH ${statements.join('; ')}; APPLY BATCH`
const upTo = (count: number) => Array.from({ length: count }, (_, i) => i)
const TENANT = '6ba7b810-9dad-11d1-80b4-00c04fd430c8'
const EVENTS = `lab.events WHERE tenant = ${TENANT} AND day = '2026-01-02'`
const event = (at: string, seq: number, using = '') =>
  `INSERT INTO lab.events (tenant, day, at, seq, host, body) VALUES (${TENANT}, '2026-01-02', '${at}', ${seq}, '10.0.0.${seq}', 'b${seq}')${using}`
/** Replaced by one line. */
const long = 'x'.repeat(300)

const CHANGES = [
  "INSERT INTO lab.orders (customer, id, qty, price, note, gone, tags) VALUES ('alice', 1, 10, 9.99, 'hello', 'old', {'a', 'b'})",
  "INSERT INTO lab.orders (customer, id) VALUES ('alice', 2)",
  "INSERT INTO lab.orders (customer, id, qty, st, ss) VALUES ('alice', 3, 30, 'static', {1, -1})",
  'ALTER TABLE lab.orders DROP gone',
  "UPDATE lab.orders SET qty = 99, note = null WHERE customer = 'alice' AND id = 1",
  "UPDATE lab.orders SET st = 'static!' WHERE customer = 'alice'",
  "UPDATE lab.orders SET ss = ss + {7} WHERE customer = 'alice'",
  "DELETE st, ss FROM lab.orders WHERE customer = 'alice'",
  "INSERT INTO lab.orders (customer, id, qty, note) VALUES ('bob', 7, 70, 'short-lived') USING TTL 3600",
  "UPDATE lab.orders USING TTL 60 AND TIMESTAMP 1700000000000000 SET qty = 5, tags = {'t'} WHERE customer = 'bob' AND id = 8",
  "INSERT INTO lab.orders (customer, id, qty) VALUES ('bob', 9, 90) USING TIMESTAMP 9223372036854775806",
  "INSERT INTO lab.orders (customer, id, qty) VALUES ('bob', 10, 91) USING TIMESTAMP -9223372036854775807",
  "INSERT INTO lab.orders (customer, id, qty) VALUES ('bob', 11, 92) USING TIMESTAMP 0",
  "UPDATE lab.orders SET tags = tags + {'zz'} WHERE customer = 'alice' AND id = 2",
  "UPDATE lab.orders SET tags = tags - {'a'} WHERE customer = 'alice' AND id = 1",
  "UPDATE lab.orders SET tags = {} WHERE customer = 'alice' AND id = 1",
  "DELETE qty FROM lab.orders WHERE customer = 'alice' AND id = 2",
  "DELETE FROM lab.orders WHERE customer = 'alice' AND id = 3",
  "DELETE FROM lab.orders USING TIMESTAMP 1600000000000000 WHERE customer = 'alice' AND id = 4",
  "DELETE FROM lab.orders WHERE customer = 'alice' AND id >= 10 AND id < 20",
  "DELETE FROM lab.orders WHERE customer = 'alice' AND id > 100",
  "DELETE FROM lab.orders WHERE customer = 'carol'",
  "INSERT INTO lab.orders (customer, id, qty) VALUES ('dan', 1, 1) IF NOT EXISTS",
  "BEGIN BATCH INSERT INTO lab.orders (customer, id, qty) VALUES ('dan', 1, 1); INSERT INTO lab.orders (customer, id, qty, st) VALUES ('dan', 2, 2, 's'); APPLY BATCH",
  "BEGIN UNLOGGED BATCH INSERT INTO lab.plain (customer, id, v) VALUES ('eve', 1, 'p'); INSERT INTO lab.orders (customer, id, qty) VALUES ('eve', 1, 1); DELETE FROM lab.plain WHERE customer = 'eve' AND id > 5; APPLY BATCH",
  "BEGIN UNLOGGED BATCH DELETE FROM lab.orders USING TIMESTAMP 1700000000000000 WHERE customer = 'fay'; INSERT INTO lab.orders (customer, id, qty) VALUES ('fay', 1, 1); DELETE FROM lab.orders WHERE customer = 'fay' AND id > 3 AND id <= 5; APPLY BATCH",
  `INSERT INTO lab.orders (customer, id, note) VALUES ('${long}', 1, '${long.repeat(20)}')`,

  event('2026-01-02 03:04:05.678Z', 1),
  event('2026-01-02 03:04:06Z', 2, ' USING TTL 10'),
  event('1970-01-01 00:00:00Z', 3),
  `DELETE FROM ${EVENTS} AND at = '2026-01-02 03:04:05.678Z'`,
  `DELETE FROM ${EVENTS} AND at = '2026-01-02 03:04:06Z' AND seq = 2`,
  `DELETE FROM ${EVENTS} AND at > '2026-01-01' AND at <= '2026-01-03'`,
  `DELETE FROM ${EVENTS} AND (at, seq) >= ('2026-01-01', 4)`,
  // two ranges that overlap meet at a boundary
  `BEGIN UNLOGGED BATCH DELETE FROM lab.events USING TIMESTAMP 1700000000000000 WHERE tenant = ${TENANT} AND day = '2026-01-02' AND at >= '2026-01-01' AND at < '2026-01-05'; DELETE FROM lab.events USING TIMESTAMP 1700000000000001 WHERE tenant = ${TENANT} AND day = '2026-01-02' AND at >= '2026-01-04' AND at < '2026-01-08'; ${event('2026-01-04 12:00:00Z', 4, ' USING TIMESTAMP 1700000000000002')}; APPLY BATCH`,
  `BEGIN UNLOGGED BATCH DELETE FROM lab.orders USING TIMESTAMP 1700000000000000 WHERE customer = 'gus' AND id > 0 AND id <= 10; DELETE FROM lab.orders USING TIMESTAMP 1700000000000001 WHERE customer = 'gus' AND id > 10 AND id < 20; INSERT INTO lab.orders (customer, id, qty) VALUES ('gus', 10, 1); APPLY BATCH`,

  `INSERT INTO lab.shapes (id, l, m, mt, s, u, fl, fm, fu, t, deep) VALUES (1, [3, 1, 2], {'a': 1, 'b': -2}, {'x': 'y', '': ''}, {${TENANT}}, {place: {street: 's', number: 4}, tags: {'q', 'p'}, "Zip": 77},
    [5, 4], {9: 'nine', -9: ''}, {place: {street: 't', number: null}, tags: null}, (1, null, [1, -1]), {'k': [{street: 'a', number: 1}, {street: null, number: 2}], 'e': []})`,
  'UPDATE lab.shapes SET l = l + [9], m[\'c\'] = 3, s = s - {00000000-0000-0000-0000-000000000001}, u."Zip" = -5 WHERE id = 1',
  "UPDATE lab.shapes SET l[1] = 11, mt = {'only': 'one'}, u.place = null, fu = null, fl = [], t = (2, 'two', []) WHERE id = 1",
  "DELETE l[0], m['a'], u.tags FROM lab.shapes WHERE id = 1",
  'UPDATE lab.shapes USING TTL 100 SET m = {\'ttl\': 1}, l = [1], u = {"Zip": 1} WHERE id = 2',
  'UPDATE lab.shapes SET l = null, m = null, mt = null, s = {}, u = null, deep = null WHERE id = 1',

  'UPDATE lab.hits SET n = n + 5 WHERE id = 1',
  'UPDATE lab.hits SET n = n - 2, m = m + 1 WHERE id = 1',
  'DELETE n FROM lab.hits WHERE id = 1',

  `INSERT INTO lab.every (id, a, bi, bl, bo, da, de, dou, du, f, i, it, si, te, ti, ts, tu, ty, u, v) VALUES (1, 'ascii', -9223372036854775808, 0x00ff, true, '1969-12-31', -12345678901234567890.123456789,
    -1.7976931348623157e308, 1y2mo3d4h5m6s7ms8us9ns, 3.4028235e38, '192.168.1.254', -2147483648, -32768, 'żółw 🐢', '23:59:59.999999999', '2026-01-02T03:04:05.678Z', 50554d6e-29bb-11e5-b345-feff819cdc9f, -128, ffffffff-ffff-ffff-ffff-ffffffffffff,
    -170141183460469231731687303715884105729)`,
  `INSERT INTO lab.every (id, a, bi, bl, bo, da, de, dou, du, f, i, it, si, te, ti, ts, tu, ty, u, v) VALUES (2, '', 9223372036854775807, 0x, false, '1970-01-01', 1E+40, NaN, -1y2mo3d4h5m6s, -Infinity, '2001:db8::1', 2147483647, 32767, '', '00:00:00', '1969-12-31T23:59:59.999Z',
    00000000-0000-1000-8080-808080808080, 127, 00000000-0000-0000-0000-000000000000, 0)`,
  `INSERT INTO lab.every (id, da, de, dou, du, f, i, ts, v) VALUES (3, 0, 0.00, -0.0, 0ns, Infinity, '::', 9223372036854775807, 127)`,
  `INSERT INTO lab.every (id, da, de, dou, du, i, ts, v) VALUES (4, 4294967295, 0.0000000001, Infinity, 7d, '::ffff:1.2.3.4', -9223372036854775808, -128)`,
  `INSERT INTO lab.every (id, a, bi, bl, bo, da, de, dou, du, f, i, it, si, te, ti, ts, tu, ty, u, v) VALUES (5, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)`,
  `INSERT INTO lab.every (id, it, bi, ts) VALUES (6, blobAsInt(0x), blobAsBigint(0x), blobAsTimestamp(0x))`,

  wide(upTo(70), 1),
  wide([0], 2),
  `UPDATE lab.wide SET words = words + {'w'}, c69 = null WHERE p = 1 AND id = 1`,
  // 71 columns, of which rows have more or fewer than half; 64 and 63 of them
  batch([wide(upTo(70), 1), wide([3], 2), wide([0, 13, 69], 3), wide(upTo(36), 4), wide(upTo(35), 5), wide(upTo(34), 6), WORDS]),
  batch([wide(upTo(64), 1), wide([63], 2), wide(upTo(33), 3), wide(upTo(32), 4), wide(upTo(31), 5)]),
  batch([wide(upTo(63), 1), wide([62], 2), wide([31, 32], 3), wide(upTo(31), 4), wide(upTo(62), 5)]),
  // columns that rows of one partition do not share
  `BEGIN UNLOGGED BATCH INSERT INTO lab.orders (customer, id, qty) VALUES ('hal', 1, 1); INSERT INTO lab.orders (customer, id, price) VALUES ('hal', 2, 2); INSERT INTO lab.orders (customer, id, note, tags) VALUES ('hal', 3, 'n', {'h'}); APPLY BATCH`,
  `INSERT INTO lab.keys (${upTo(36)
    .map((i) => `k${i}`)
    .join(', ')}, v) VALUES (${upTo(36).join(', ')}, 1)`,
  `DELETE FROM lab.keys WHERE ${upTo(34)
    .map((i) => `k${i} = ${i}`)
    .join(' AND ')} AND k34 > 3`,
]

/** One a line; `---` starts a new segment: what comes before it are definitions. */
export function labStatements(release: Release): readonly string[] {
  const vectors = release === '5.0' ? VECTORS : []
  return [...DEFINITIONS, ...vectors.slice(0, 1), '---', ...CHANGES, ...vectors.slice(1)].map((statement) => statement.replaceAll(/\s*\n\s*/g, ' '))
}
