/** Iceberg's own REST catalog server for tests (RESTCatalogServer of iceberg-open-api) on a JdbcCatalog in SQLite, tables in a local folder or in S3. */
import { spawn } from 'node:child_process'
import { mkdirSync, openSync } from 'node:fs'
import path from 'node:path'
import { freePorts } from './free-ports.ts'
import { findJava, javaSkipReason, mavenJars } from './maven.ts'
import { BUCKET, OWNER, testS3 } from './seaweedfs.ts'
import { serviceVersion } from './service-version.ts'
import { sharedService } from './shared-service.ts'
import { untilAnswering } from './until-answering.ts'

const VERSION = serviceVersion('iceberg')
const JDK = 17
const START_DEADLINE_MS = 120_000

const JARS = [
  { group: 'org.apache.iceberg', artifact: 'iceberg-core', version: VERSION },
  { group: 'org.apache.iceberg', artifact: 'iceberg-core', version: VERSION, classifier: 'tests' },
  { group: 'org.apache.iceberg', artifact: 'iceberg-open-api', version: VERSION, classifier: 'test-fixtures' },
  { group: 'org.xerial', artifact: 'sqlite-jdbc', version: '3.50.3.0' },
  { group: 'org.eclipse.jetty', artifact: 'jetty-server', version: '11.0.26' },
  { group: 'org.eclipse.jetty', artifact: 'jetty-servlet', version: '11.0.26' },
  { group: 'org.apache.hadoop', artifact: 'hadoop-client-api', version: '3.4.1' },
  { group: 'org.apache.hadoop', artifact: 'hadoop-client-runtime', version: '3.4.1' },
  { group: 'org.slf4j', artifact: 'slf4j-simple', version: '2.0.17' },
] as const
const AWS_JARS = [
  { group: 'org.apache.iceberg', artifact: 'iceberg-aws', version: VERSION },
  { group: 'org.apache.iceberg', artifact: 'iceberg-aws-bundle', version: VERSION },
] as const

/** Why the catalog cannot run here, or null. */
export function skipReason(): string | null {
  return javaSkipReason(JDK)
}

/** The run's shared catalog; use fresh namespaces. */
export async function testRestCatalog(): Promise<{ readonly uri: string }> {
  const { uri } = await sharedService('iceberg-rest', async (dir) => {
    const jars = await mavenJars(`iceberg-rest-${VERSION}`, JARS)
    mkdirSync(path.join(dir, 'warehouse'), { recursive: true })
    const server = await start(dir, jars, { CATALOG_WAREHOUSE: `file://${dir}/warehouse` })
    return { uri: server.uri, pids: [server.pid] }
  })
  return { uri }
}

/** The same on the run's shared S3 store; it gives clients no keys. */
export async function testRestCatalogOnS3(): Promise<{ readonly uri: string; readonly endpoint: string }> {
  const { endpoint } = await testS3()
  const { uri } = await sharedService('iceberg-rest-s3', async (dir) => {
    const jars = await mavenJars(`iceberg-rest-aws-${VERSION}`, [...JARS, ...AWS_JARS])
    const server = await start(dir, jars, {
      CATALOG_WAREHOUSE: `s3://${BUCKET}/rest`,
      CATALOG_IO__IMPL: 'org.apache.iceberg.aws.s3.S3FileIO',
      CATALOG_S3_ENDPOINT: endpoint,
      CATALOG_S3_PATH__STYLE__ACCESS: 'true',
      CATALOG_S3_ACCESS__KEY__ID: OWNER.accessKeyId,
      CATALOG_S3_SECRET__ACCESS__KEY: OWNER.secretAccessKey,
      CATALOG_CLIENT_REGION: 'us-east-1',
      AWS_REGION: 'us-east-1',
    })
    return { uri: server.uri, pids: [server.pid] }
  })
  return { uri, endpoint }
}

async function start(dir: string, jars: string, env: Readonly<Record<string, string>>): Promise<{ uri: string; pid: number }> {
  const java = findJava(JDK)
  if (java === null) throw new Error('no JDK')
  const [port] = await freePorts(1)
  const log = path.join(dir, 'server.log')
  const out = openSync(log, 'a')
  const child = spawn(
    java,
    ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xmx512m', '-cp', path.join(jars, '*'), 'org.apache.iceberg.rest.RESTCatalogServer'],
    {
      cwd: dir,
      stdio: ['ignore', out, out],
      detached: true,
      env: {
        ...process.env,
        // two may write at once
        CATALOG_URI: `jdbc:sqlite:file:${dir}/catalog.db?busy_timeout=60000`,
        CATALOG_JDBC_USER: 'u',
        CATALOG_JDBC_PASSWORD: 'p',
        CATALOG_JDBC_SCHEMA__VERSION: 'V1',
        CATALOG_CATALOG__IMPL: 'org.apache.iceberg.jdbc.JdbcCatalog',
        CATALOG_REST_PORT: String(port),
        ...env,
      },
    },
  )
  child.unref()
  const uri = `http://127.0.0.1:${port}`
  const answers = async () => (await fetch(`${uri}/v1/config`, { signal: AbortSignal.timeout(5000) })).ok
  await untilAnswering(child, { name: 'the REST catalog', log, patienceMs: START_DEADLINE_MS, answers })
  return { uri, pid: child.pid! }
}
