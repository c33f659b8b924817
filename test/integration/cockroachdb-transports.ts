import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterAll } from 'vitest'
import type { ProvisionedSource, SourceCapabilities } from '../../testing/source/source-driver.ts'
import { SourceBench, type SourceRun } from '../../testing/source/source-run.ts'
import { Authority, opensslSkipReason } from '../services/certificates.ts'
import type { CockroachFixture } from '../services/cockroachdb.ts'
import { freePorts } from '../services/free-ports.ts'
import { provisionCockroachdb } from './cockroachdb-source.ts'

type Settings = Readonly<Record<string, unknown>>

/** A way in which rows come, for which the connector is tested; over a stand-in for the server. */
export interface Transport {
  readonly name: string
  readonly can: SourceCapabilities
  /** Why it cannot be had here, or null. */
  readonly skip: string | null
  /** A cluster of its own. */
  provision(settings?: Settings): Promise<ProvisionedSource & { readonly cluster: CockroachFixture }>
}

const can = { changesKeys: true, keepsNothing: true }

export const SQL: Transport = { name: 'over SQL', can, skip: null, provision: provisionCockroachdb }

export const WEBHOOK: Transport = {
  name: 'by webhook',
  can: { ...can, exclusive: true },
  skip: opensslSkipReason(),
  async provision(settings) {
    const [port] = await freePorts(1)
    const { cert, key, ca } = webhookTls()
    return provisionCockroachdb({ ...settings, webhook: { host: '127.0.0.1', port, url: `https://127.0.0.1:${port}`, cert, key, ca } })
  },
}

export const TRANSPORTS = [SQL, WEBHOOK]

/** Paths of the webhook's certificate and key; of the authority also its text. */
export interface WebhookTls {
  readonly cert: string
  readonly key: string
  readonly ca: string
  readonly trusted: string
}

const dir = mkdtempSync(path.join(os.tmpdir(), 'webhook-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

let made: WebhookTls | null = null

/** Made with the first call of a test file. */
export function webhookTls(): WebhookTls {
  if (made !== null) return made
  const authority = new Authority(dir, 'authority')
  const store = (name: string, text: string) => {
    const file = path.join(dir, name)
    writeFileSync(file, text)
    return file
  }
  const { cert, key } = authority.issue('millrace')
  const trusted = authority.certificate
  made = { cert: store('cert.pem', cert), key: store('key.pem', key), ca: store('ca.pem', trusted), trusted }
  return made
}

export interface OpenedCluster extends AsyncDisposable {
  readonly bench: SourceBench
  readonly cluster: CockroachFixture
}

/** A bench with these tables, on a cluster of its own. */
export async function openCluster(transport: Transport, tables: readonly string[], settings?: Settings): Promise<OpenedCluster> {
  const source = await transport.provision(settings)
  const bench = await SourceBench.open(async () => source, transport.can)
  await bench.createTable(...tables)
  return { bench, cluster: source.cluster, [Symbol.asyncDispose]: () => bench[Symbol.asyncDispose]() }
}

/** The same, and a run that has all that was there. */
export async function openCaptured(
  transport: Transport,
  tables: readonly string[] = ['items'],
  settings?: Settings,
): Promise<OpenedCluster & { readonly run: SourceRun }> {
  const opened = await openCluster(transport, tables, settings)
  const run = await opened.bench.start()
  await opened.bench.caughtUp(run)
  return { ...opened, run }
}
