/** The same rows in one table, a hundred and a thousand: what a row costs. */
import { type BenchCase, brokerPid, type CaseOptions } from './cases.ts'
import { drain } from './drain.ts'
import { MillraceRun } from './millrace-run.ts'

const COUNTS = [1, 100, 1000]
const PER_STATEMENT = 100
/** Rows before the first that is measured, over all tables: each has been described, and its code compiled. */
const WARM_ROWS = 100_000

export interface TablesServer {
  readonly name: string
  /** The source, which captures the tables t_0, t_1 and so on. */
  readonly from: { readonly yaml: string; readonly topic: string }
  /** Makes so many empty tables, instead of those there are. */
  make(count: number): Promise<unknown>
  /** Runs so many statements of a hundred rows, ten to a transaction, each into the next table. */
  load(count: number, statements: number): Promise<unknown>
  /** The process whose CPU time is the server's. */
  pid(): Promise<number>
}

export async function manyTables({ lab, rows, repetition, logs, report }: CaseOptions, server: TablesServer): Promise<void> {
  for (const log of logs) {
    for (const count of COUNTS) {
      await server.make(count)
      await using run = await MillraceRun.prepare(lab, `tables-${count}-${server.name}-${log}-${repetition}`, { log, from: server.from })
      await run.provision()
      await server.load(count, (WARM_ROWS + rows) / PER_STATEMENT)
      run.start()
      report(
        await drain({
          label: `${count} tables ${server.name} ${log}`,
          rows,
          before: WARM_ROWS,
          expected: rows,
          records: () => run.rowsOf('bench'),
          pid: () => run.pid,
          walsender: () => server.pid(),
          broker: await brokerPid(lab, log),
          launchedAt: run.startedAt,
          pollMs: 50,
        }),
      )
      await run.stop()
    }
  }
}

/** Of Postgres. */
export const tables: BenchCase = async (options) => {
  const { lab } = options
  const { url } = await lab.postgres()
  await manyTables(options, {
    name: 'postgres',
    from: { yaml: `    kind: postgres\n    url: ${url}\n    tables: ['public.t_*']\n`, topic: 'bench.public.t_0' },
    make: async (count) => {
      await lab.freshTable()
      await lab.sql(`call make_tables(${count})`)
    },
    load: async (count, statements) => {
      await lab.sql(`call load_tables(${count}, 1, ${statements})`)
      await lab.sql('checkpoint')
    },
    pid: () => lab.walsender(),
  })
}
