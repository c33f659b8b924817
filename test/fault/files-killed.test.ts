/** Files of lines in a whole mesh: programs append and rotate, in both ways, while the mesh is killed. */
import { appendFileSync, copyFileSync, mkdirSync, renameSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { MeshProcess } from '../services/mesh-process.ts'
import { RandomKills } from './random-kills.ts'
import { faultDir, node } from './shop-mesh.ts'

const ROUNDS = Number(process.env.MILLRACE_KILL_ROUNDS ?? 6)
const SEED = Number(process.env.MILLRACE_SEED ?? 7)
/** What programs write in a life of the mesh at most: how fast it reads decides nothing. */
const TURNS = 2500
/** Lines until the next rotation. */
const ROTATE_AT = 400
const HEADER = 'id,name,quantity\n'

let mesh: MeshProcess | null = null
const { dir, remove } = faultDir()
afterEach(async () => {
  await mesh?.kill()
  remove()
})

const logs = path.join(dir, 'logs')
const at = (name: string) => path.join(logs, name)

const YAML = `mesh: files
dataDir: state
sources:
  logs:
    kind: files
    directory: ./logs
    pollMs: 20
    snapshot: { chunkRows: 200 }
    tables:
      - { files: 'events.ndjson*', table: events, format: ndjson, columns: { id: int64, text: string } }
      - { files: 'states.ndjson*', table: states, format: ndjson, columns: { id: int64, text: string }, key: [id] }
      - { files: 'orders.csv*', table: orders, format: csv, columns: { id: int64, name: string, quantity: int32 }, key: [id] }
sinks:
  lake: { kind: iceberg, from: [logs], warehouse: ./lake, commitRows: 5000, commitMs: 200 }
  search: { kind: search, from: [logs], path: ./search.db }
`

/** The `n`th lines of each table; what began a line ends it the next time. */
class Programs {
  lines = 0
  #rotations = 0
  #begun = ''

  turn(): void {
    const n = this.lines++
    const event = `${JSON.stringify({ id: n, text: `event ${n} ${'é'.repeat(n % 40)}` })}\n`
    const cut = n % 7 === 0 ? 12 : event.length
    appendFileSync(at('events.ndjson'), this.#begun + event.slice(0, cut))
    this.#begun = event.slice(cut)
    // a key comes again and again
    appendFileSync(at('states.ndjson'), `${JSON.stringify({ id: n % 100, text: `state ${n}` })}\n`)
    appendFileSync(at('orders.csv'), `${n},"order ""${n}""",${n % 3 === 0 ? '' : n}\n`)
    if (n % ROTATE_AT === ROTATE_AT - 1) this.#rotate()
  }

  begin(): void {
    for (const name of ['events.ndjson', 'states.ndjson']) writeFileSync(at(name), '')
    writeFileSync(at('orders.csv'), HEADER)
  }

  /** By renaming, and by copying and emptying. */
  #rotate(): void {
    const old = ++this.#rotations
    appendFileSync(at('events.ndjson'), this.#begun)
    this.#begun = ''
    for (const name of ['events.ndjson', 'states.ndjson']) {
      renameSync(at(name), at(`${name}.${old}`))
      writeFileSync(at(name), '')
    }
    copyFileSync(at('orders.csv'), at(`orders.csv.${old}`))
    truncateSync(at('orders.csv'))
    appendFileSync(at('orders.csv'), HEADER)
  }

  end(): void {
    appendFileSync(at('events.ndjson'), this.#begun)
  }
}

/** Writes until it is stopped, at most so many turns for each `more`. */
function keepWriting(programs: Programs): { more(): void; stop(): Promise<void> } {
  let over = false
  let left = 0
  const work = (async () => {
    while (!over) {
      for (let n = 0; n < 5 && left > 0; n++, left--) programs.turn()
      // no faster than a busy machine follows
      await delay(10)
    }
    programs.end()
  })()
  return {
    more() {
      left = TURNS
    },
    stop() {
      over = true
      return work
    },
  }
}

test(`files that are written and rotated through ${ROUNDS} kills: every line is there, in log, lake and index (seed ${SEED})`, async () => {
  mkdirSync(logs)
  const programs = new Programs()
  programs.begin()
  for (let n = 0; n < 2000; n++) programs.turn()
  mesh = new MeshProcess(dir, YAML)
  const kills = new RandomKills(SEED)
  const busy = keepWriting(programs)
  try {
    for (let round = 0; round < ROUNDS; round++) {
      busy.more()
      mesh.start()
      await kills.kill(mesh, 2000)
    }
    busy.more()
    mesh.start()
    await mesh.until('lines go on', (status) => node(status, 'logs').rows > 500)
  } finally {
    await busy.stop()
  }
  const tables = await mesh.auditCommand()
  const { lines } = programs
  expect(tables.map(({ table, equal, differences, ledger, source }) => ({ table, equal, differences, ledger: ledger.equal, rows: source.rows }))).toEqual(
    Object.entries({ events: lines, orders: lines, states: 100 }).map(([table, rows]) => ({
      table: `files.${table}`,
      equal: true,
      differences: [],
      ledger: true,
      rows,
    })),
  )
  expect(mesh.output).not.toMatch(/audit\.unequal|parked|history_lost/)
  expect(await mesh.stop()).toBe(0)
})
