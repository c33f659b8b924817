/** A real schema registry that speaks Confluent's API: Apicurio Registry with an in-memory database, one per test run. */
import { spawn } from 'node:child_process'
import { openSync } from 'node:fs'
import path from 'node:path'
import { freePorts } from './free-ports.ts'
import { findJava, javaSkipReason, mavenArchive } from './maven.ts'
import { serviceVersion } from './service-version.ts'
import { sharedService } from './shared-service.ts'
import { untilAnswering } from './until-answering.ts'

const VERSION = serviceVersion('registry')
const JDK = 21
const START_DEADLINE_MS = 180_000

/** Why the registry cannot run here, or null. */
export function skipReason(): string | null {
  return javaSkipReason(JDK)
}

/** The run's shared registry; `url` is the root of its Confluent-compatible API. Use fresh subjects: levels and subjects are shared. */
export async function testRegistry(): Promise<{ readonly url: string }> {
  const { url } = await sharedService('apicurio', async (dir) => {
    const server = await startRegistry(dir)
    return { url: server.url, pids: [server.pid] }
  })
  return { url }
}

/** @throws when it does not answer within three minutes; its own output is in the message */
export async function startRegistry(dir: string): Promise<{ readonly url: string; readonly pid: number }> {
  const java = findJava(JDK)
  if (java === null) throw new Error(skipReason() ?? 'no java')
  const home = await mavenArchive(`apicurio-${VERSION}`, { group: 'io.apicurio', artifact: 'apicurio-registry-app', version: VERSION }, 'all')
  const [port, managementPort] = (await freePorts(2)) as [number, number]
  const log = path.join(dir, 'registry.log')
  const out = openSync(log, 'a')
  const settings = {
    'quarkus.http.host': '127.0.0.1',
    'quarkus.http.port': port,
    // its default is 0.0.0.0:9000
    'quarkus.management.host': '127.0.0.1',
    'quarkus.management.port': managementPort,
    'apicurio.storage.kind': 'sql',
    'apicurio.storage.sql.kind': 'h2',
    'apicurio.rest.deletion.artifact.enabled': true,
    'apicurio.rest.deletion.artifact-version.enabled': true,
    'apicurio.rest.deletion.group.enabled': true,
  }
  const flags = Object.entries(settings).map(([name, value]) => `-D${name}=${value}`)
  const child = spawn(java, ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xmx512m', ...flags, '-jar', 'quarkus-run.jar'], {
    cwd: home,
    stdio: ['ignore', out, out],
    detached: true,
  })
  child.unref()
  const url = `http://127.0.0.1:${port}/apis/ccompat/v7`
  const answers = async () => (await fetch(`${url}/subjects`, { signal: AbortSignal.timeout(5000) })).ok
  await untilAnswering(child, { name: 'Apicurio Registry', log, patienceMs: START_DEADLINE_MS, answers })
  return { url, pid: child.pid! }
}
