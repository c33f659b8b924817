import { execFileSync } from 'node:child_process'
import { chmodSync, chownSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import pg from 'pg'
import pino from 'pino'
import { expect, it } from 'vitest'
import postgres from '../../connectors/postgres/index.ts'
import { serverUser, startPostgres } from '../../control/demo/postgres-server.ts'
import { opensslSkipReason } from '../services/certificates.ts'
import { RecordingOutput } from './recording-output.ts'

const skip = opensslSkipReason()
it.skipIf(skip !== null)(`streams over TLS, and refuses a server that its authority did not sign${skip === null ? '' : ` (skipped: ${skip})`}`, async () => {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-tls-'))
  chmodSync(dir, 0o755)
  const [cert, key] = [path.join(dir, 'server.crt'), path.join(dir, 'server.key')]
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  execFileSync('openssl', ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-keyout', key, '-out', cert, ...subject], { stdio: 'ignore' })
  chmodSync(key, 0o600)
  const { uid, gid } = serverUser()
  // 0600 of root would keep the server out
  if (uid !== undefined) chownSync(key, uid, gid!)
  const server = await startPostgres({ dataDir: path.join(dir, 'data'), settings: { ssl: 'on', ssl_cert_file: cert, ssl_key_file: key } })
  try {
    const admin = new pg.Client({ host: '127.0.0.1', port: server.port, user: 'postgres', database: 'postgres' })
    await admin.connect()
    await admin.query('create table t (id int primary key, v text)')
    const context = { mesh: 'tls', node: 'source', dataDir: dir, logger: pino({ level: 'silent' }), metric: () => {} }
    const settings = (ssl: unknown) =>
      postgres.config.parse({ host: '127.0.0.1', port: server.port, database: 'postgres', user: 'postgres', tables: ['public.t'], ssl })
    await expect(postgres.open(settings(true), context, null)).rejects.toMatchObject({ code: 'source.forbidden' })

    await using connector = await postgres.open(settings({ ca: readFileSync(cert, 'utf8') }), context, null)
    const { rows } = await admin.query('select s.ssl from pg_stat_ssl s join pg_replication_slots r on r.active_pid = s.pid')
    expect(rows).toEqual([{ ssl: true }])
    // more than any buffer on the way holds, and one value larger than the connection's own
    await admin.query(`insert into t select i, repeat('v', 2000) from generate_series(1, 5000) i`)
    await admin.query(`insert into t values (6000, repeat('w', 6000000))`)
    const output = new RecordingOutput()
    const stop = new AbortController()
    for await (const _ of connector.changes(connector.start, output, stop.signal)) if (output.changes.length >= 5001) stop.abort()
    expect(output.changes.map((change) => change.after?.id)).toEqual([...Array.from({ length: 5000 }, (_, i) => i + 1), 6000])
    expect((output.changes.at(-1)!.after!.v as string).length).toBe(6_000_000)
    await admin.end()
  } finally {
    await server.stop()
    rmSync(dir, { recursive: true, force: true })
  }
})
