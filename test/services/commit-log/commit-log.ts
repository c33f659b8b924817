/** Segments that a real Cassandra wrote, with what its own reader finds in them: one JVM that is server, writer and reader. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { cassandraCommand, type Release, VERSIONS } from '../cassandra-jvm.ts'
import { freePorts } from '../free-ports.ts'

const run = promisify(execFile)
const DEADLINE_MS = 240_000

export interface RecordedSegment {
  /** Path of the segment; its index lies beside it. */
  readonly file: string
  readonly index: string
  /** A line of JSON for each mutation that Cassandra's reader gave; empty when that was not asked for. */
  readonly mutations: readonly string[]
}

export interface Recording {
  /** Rows of system_schema, as pairs of its table's name and the row; those of the keyspaces that it leaves out as well. */
  readonly schema: readonly (readonly [string, Readonly<Record<string, unknown>>])[]
  readonly segments: readonly RecordedSegment[]
}

export interface RecordingOptions {
  /** Empty folder. */
  readonly dir: string
  readonly release: Release
  /** Lines of cassandra.yaml more. */
  readonly yaml: readonly string[]
  /** Run one after the other; `---` starts a new segment; `1000 x ` before one runs it so often, with each number from 0 on for %d. */
  readonly statements: readonly string[]
  /** Cassandra's own reader reads them too. */
  readonly reread: boolean
}

/** @throws with the output of Cassandra when it or a statement fails */
export async function recordCommitLog({ dir, release, yaml, statements, reread }: RecordingOptions): Promise<Recording> {
  const [storage, jmx] = (await freePorts(2)) as [number, number]
  const out = path.join(dir, 'out')
  mkdirSync(out, { recursive: true })
  const script = path.join(dir, 'statements.cql')
  writeFileSync(script, `${statements.join('\n')}\n`)
  const { java, flags } = await cassandraCommand({
    ...{ release, dir, ports: { storage, jmx } },
    yaml: yaml.join('\n'),
    main: [path.join(import.meta.dirname, 'CommitLogLab.java'), script, out, String(reread)],
  })
  await run(java, flags, { cwd: dir, timeout: DEADLINE_MS, maxBuffer: 64 * 1024 * 1024 }).catch((error: { stdout?: string; stderr?: string }) => {
    throw new Error(`Cassandra ${VERSIONS[release]} failed:\n${(error.stdout ?? '').slice(-6000)}\n${(error.stderr ?? '').slice(-4000)}`, { cause: error })
  })
  const lines = (file: string) =>
    readFileSync(path.join(out, file), 'utf8')
      .split('\n')
      .filter((line) => line !== '')
  return {
    schema: lines('schema.jsonl').map((line) => JSON.parse(line)),
    segments: readdirSync(out)
      .filter((name) => name.endsWith('.log') && existsSync(path.join(out, name.replace('.log', '_cdc.idx'))))
      .sort()
      .map((name) => ({
        file: path.join(out, name),
        index: readFileSync(path.join(out, name.replace('.log', '_cdc.idx')), 'utf8'),
        mutations: reread ? lines(name.replace('.log', '.jsonl')) : [],
      })),
  }
}
