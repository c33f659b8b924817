/** Real Postgres servers of the older supported majors, from Maven's `embedded-postgres-binaries`: one per version and run, started when first asked for. */
import { cpSync } from 'node:fs'
import path from 'node:path'
import { startPostgres } from '../../control/demo/postgres-server.ts'
import { freePorts } from './free-ports.ts'
import { mavenPackedTree, mavenSkipReason, onPath } from './maven.ts'
import { databaseOn, type TestDatabase } from './postgres.ts'
import { sharedService } from './shared-service.ts'

export type Major = 14 | 15 | 16 | 17

export const MAJORS: readonly Major[] = [14, 15, 16, 17]

/** The newest release of each major that Maven has, by architecture. */
const ARCHITECTURES: Readonly<Record<string, { readonly name: string; readonly releases: Readonly<Record<Major, string>> }>> = {
  x64: { name: 'amd64', releases: { 14: '14.24.0', 15: '15.19.0', 16: '16.15.0', 17: '17.11.0' } },
  arm64: { name: 'arm64v8', releases: { 14: '14.23.0', 15: '15.19.0', 16: '16.15.0', 17: '17.11.0' } },
}

/** Why these servers cannot run here, or null: `describe.skipIf(skipReason() !== null)`. */
export function skipReason(): string | null {
  if (process.platform !== 'linux' || ARCHITECTURES[process.arch] === undefined) return `no binaries for ${process.platform} ${process.arch}`
  return mavenSkipReason() ?? (onPath('xz') ? null : 'no xz on PATH')
}

/** A fresh database on the run's shared server of this version. */
export async function versionDatabase(major: Major): Promise<TestDatabase> {
  const bin = await postgresBinOf(major)
  const { port } = await sharedService(`postgres-${major}`, async (dir) => {
    const server = await startPostgres({ dataDir: path.join(dir, 'data'), bin, port: (await freePorts(1))[0]!, detached: true })
    return { port: server.port, pids: [server.pid] }
  })
  return databaseOn(port)
}

/** Folder with initdb and postgres of this version: in the run's folder, since as root the server runs as a user who cannot look into root's cache. */
export async function postgresBinOf(major: Major): Promise<string> {
  const { home } = await sharedService(`postgres-${major}-binaries`, async (dir) => {
    const { name, releases } = ARCHITECTURES[process.arch]!
    const version = releases[major]
    const artifact = `embedded-postgres-binaries-linux-${name}`
    const tree = await mavenPackedTree(`postgres-${version}`, { group: 'io.zonky.test.postgres', artifact, version })
    if (process.getuid?.() !== 0) return { home: tree, pids: [] }
    const home = path.join(dir, 'home')
    cpSync(tree, home, { recursive: true, verbatimSymlinks: true })
    return { home, pids: [] }
  })
  return path.join(home, 'bin')
}
