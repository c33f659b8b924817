/** The demo's shop: its schema, its rows and a live workload with everything that makes capture hard. Deterministic for a seed, but for timing. */
import pg from 'pg'

const SCHEMA = `
create type customer_tier as enum ('bronze', 'silver', 'gold');
create type order_status as enum ('open', 'paid', 'shipped', 'cancelled');
create table customers (
  id uuid primary key, name text not null, email text not null, tier customer_tier not null default 'bronze', tags text[] not null default '{}',
  address jsonb, balance numeric(12,2) not null default 0, created_at timestamptz not null default now());
create table products (
  sku text primary key, title text not null, description text not null, price numeric(10,2) not null, weight_kg real, dimensions int[],
  available daterange, active boolean not null default true, updated_at timestamptz not null default now());
create table orders (
  id bigint generated always as identity primary key, customer_id uuid not null, status order_status not null default 'open', total numeric(12,2) not null default 0,
  placed_at timestamptz not null default now(), deliver_by date, note text);
create table order_lines (
  order_id bigint not null, line_no int not null, sku text not null, quantity int not null, unit_price numeric(10,2) not null, primary key (order_id, line_no));
`

const ADJECTIVES = ['quiet', 'amber', 'northern', 'folding', 'cordless', 'woven', 'polished', 'compact', 'river', 'copper', 'velvet', 'granite']
const NOUNS = ['lamp', 'kettle', 'chair', 'notebook', 'bicycle', 'blanket', 'radio', 'table', 'camera', 'backpack', 'clock', 'mug']
const FIRST = ['Ada', 'Céline', 'Dmitri', 'Fatima', 'Grace', 'Hiroshi', 'Ingrid', 'João', 'Kofi', 'Linnéa', 'María', 'Zoë']
const LAST = ['Abe', 'Brönte', 'Chen', 'Dubois', 'Eriksen', 'Fischer', 'García', 'Haddad', 'Ivanova', 'Jensen', 'Kowalski', 'Ōe']

/** Words that the embedded search finds: printed as the demo's example query. */
export const EXAMPLE_QUERY = 'amber lamp'

export async function createShop(url: string, rows: number): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  // a lost connection rejects the query that waits
  client.on('error', () => {})
  await client.connect()
  try {
    await client.query(SCHEMA)
    const customers = Math.max(10, Math.round(rows * 0.2))
    const products = Math.max(10, Math.round(rows * 0.05))
    const orders = Math.max(10, Math.round(rows * 0.25))
    const lines = Math.max(10, rows - customers - products - orders)
    const pick = (list: readonly string[], n: string) => `(array[${list.map((w) => `'${w}'`).join(',')}])[1 + (${n}) % ${list.length}]`
    await client.query(`
      insert into customers select md5('c' || i)::uuid, ${pick(FIRST, 'i')} || ' ' || ${pick(LAST, 'i / 7')}, 'c' || i || '@example.com',
        (array['bronze','silver','gold'])[1 + i % 3]::customer_tier, case when i % 4 = 0 then '{}' else array['tag' || i % 9, null, 'a "quoted" one'] end,
        case when i % 5 = 0 then null else jsonb_build_object('city', 'City ' || i % 50, 'zip', lpad((i % 99999)::text, 5, '0'), 'geo', jsonb_build_array(i % 90, -(i % 180))) end,
        (i % 100000) / 7.0, timestamptz '2026-01-01' + i * interval '37 seconds' from generate_series(1, ${customers}) i`)
    await client.query(`
      insert into products select 'SKU-' || lpad(i::text, 7, '0'), ${pick(ADJECTIVES, 'i')} || ' ' || ${pick(NOUNS, 'i / 3')}, ${LONG_TEXT('i')},
        (i % 50000) / 3.0, case when i % 11 = 0 then 'NaN'::real else i / 13.0 end, array[i % 40, i % 30, i % 20], daterange('2026-01-01'::date + i % 300, null), i % 17 <> 0,
        timestamptz '2026-01-01' + i * interval '11 seconds' from generate_series(1, ${products}) i`)
    await client.query(`
      insert into orders (customer_id, status, total, placed_at, deliver_by, note) select md5('c' || 1 + i % ${customers})::uuid, (array['open','paid','shipped','cancelled'])[1 + i % 4]::order_status,
        (i % 90000) / 9.0, timestamptz '2026-02-01' + i * interval '13 seconds', case when i % 3 = 0 then date '2026-03-01' + i % 90 end, case when i % 6 = 0 then 'note ' || i end
        from generate_series(1, ${orders}) i`)
    await client.query(`
      insert into order_lines select 1 + i / 4 % ${orders}, i, 'SKU-' || lpad((1 + i % ${products})::text, 7, '0'), 1 + i % 9, (i % 5000) / 3.0 from generate_series(1, ${lines}) i`)
    await client.query('analyze')
  } finally {
    await client.end()
  }
}

/** Text that does not compress below 2 kB, so that Postgres stores it out of line (TOAST) and leaves it out of updates. */
const LONG_TEXT = (i: string) => `(select string_agg(md5(${i}::text || j), ' ') from generate_series(1, 130) j)`

export interface Workload {
  /** Statements that changed rows so far. */
  readonly statements: () => number
  readonly done: Promise<void>
}

/**
 * Runs for `seconds`: inserts, updates (TOASTed text left alone), deletes, key changes, rollbacks, multi-row transactions, and half-way, with `evolve`, an
 * added column and an added table. `steady` takes a shop that evolved before.
 */
export function runWorkload(url: string, seconds: number, seed = 42, shape: 'evolve' | 'steady' = 'evolve'): Workload {
  let statements = 0
  let state = seed
  const random = () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 4_294_967_296
  }
  const int = (below: number) => Math.floor(random() * below)
  const done = (async () => {
    const client = new pg.Client({ connectionString: url })
    // a lost connection rejects the query that waits
    client.on('error', () => {})
    await client.connect()
    try {
      const counts = await client.query<{ customers: number; products: number; orders: number }>(
        'select (select count(*)::int from customers) customers, (select count(*)::int from products) products, (select coalesce(max(id), 0)::int from orders) orders',
      )
      const { customers, products } = counts.rows[0]!
      let { orders } = counts.rows[0]!
      const end = Date.now() + seconds * 1000
      const half = Date.now() + seconds * 500
      let evolved = shape === 'steady'
      let serial = 0
      while (!evolved || Date.now() < end) {
        if (!evolved && Date.now() >= half) {
          evolved = true
          await client.query("alter table customers add column loyalty_points int, add column region text default 'nowhere'")
          await client.query(
            'create table reviews (sku text not null, customer_id uuid not null, stars smallint not null, body text, primary key (sku, customer_id))',
          )
          await client.query(
            `insert into reviews select 'SKU-' || lpad(i::text, 7, '0'), md5('c' || i)::uuid, 1 + i % 5, 'review number ' || i from generate_series(1, ${Math.min(products, 200)}) i`,
          )
        }
        const kind = int(100)
        serial++
        const sku = `SKU-${String(1 + int(products)).padStart(7, '0')}`
        if (kind < 45) {
          await client.query('begin')
          const order = await client.query<{ id: string }>(
            "insert into orders (customer_id, total, note) values (md5('c' || $1::text)::uuid, $2, $3) returning id",
            [1 + int(customers), (int(100_000) / 100).toFixed(2), int(3) === 0 ? null : `live order ${serial}`],
          )
          orders = Number(order.rows[0]!.id)
          const lines = 1 + int(5)
          for (let line = 1; line <= lines; line++) {
            await client.query('insert into order_lines values ($1, $2, $3, $4, $5)', [orders, line, sku, 1 + int(9), (int(90_000) / 100).toFixed(2)])
          }
          await client.query(int(20) === 0 ? 'rollback' : 'commit')
          statements += lines + 1
        } else if (kind < 65) {
          await client.query('update products set price = price + 0.01, updated_at = clock_timestamp() where sku = $1', [sku])
          statements++
        } else if (kind < 78) {
          await client.query("update orders set status = 'paid', total = total + 1 where id = $1", [1 + int(orders)])
          statements++
        } else if (kind < 86) {
          await client.query('delete from order_lines where order_id = $1', [1 + int(orders)])
          statements++
        } else if (kind < 90) {
          await client.query('delete from orders where id = $1', [1 + int(orders)])
          statements++
        } else if (kind < 94) {
          await client.query("update products set sku = sku || '-' || $2::text where sku = $1 and length(sku) < 40", [sku, serial])
          statements++
        } else if (kind < 98) {
          const set = evolved ? ', loyalty_points = coalesce(loyalty_points, 0) + 1' : ''
          await client.query(`update customers set balance = balance - 1.5, tags = tags || $2::text${set} where id = md5('c' || $1::text)::uuid`, [
            1 + int(customers),
            `t${serial % 7}`,
          ])
          statements++
        } else if (evolved) {
          await client.query("update reviews set stars = 1 + stars % 5, body = 'edited ' || $1 where sku = $2", [serial, sku])
          statements++
        }
      }
    } finally {
      await client.end()
    }
  })()
  return { statements: () => statements, done }
}
