import { asMillraceError, type Finding } from '../../core/plugin.ts'
import { CatalogReader } from './catalog.ts'
import { type CockroachdbConfig, clientConfig } from './cockroachdb-config.ts'
import { gcSeconds } from './gc-watch.ts'
import { versionMistake, versionOf } from './open-cockroachdb.ts'
import { SqlSession } from './sql-session.ts'
import { WebhookEndpoint } from './webhook-endpoint.ts'

/** CockroachDB's own default; below it a short absence loses history. */
const SHORT_SECONDS = 14_400

/** Looks at version, settings, privileges and the time for which history is kept. Changes nothing. */
export async function checkCockroachdb(config: CockroachdbConfig): Promise<readonly Finding[]> {
  await using sql = new SqlSession(clientConfig(config))
  const findings: Finding[] = []
  const needs = config.webhook === undefined ? 'SELECT' : 'CHANGEFEED'
  const failed = (subject: string, thrown: unknown, level: Finding['level'] = 'error') => {
    const { message, fix } = asMillraceError(thrown)
    findings.push({ level, subject, message, ...(fix === undefined ? {} : { fix }) })
  }
  try {
    const version = await versionOf(sql)
    const mistake = versionMistake(version)
    if (mistake !== null) return [{ level: 'error', subject: 'version', message: mistake, fix: 'upgrade the cluster' }]
    findings.push({ level: 'ok', subject: 'version', message: `CockroachDB ${version!.join('.')}` })
  } catch (error) {
    failed('connection', error)
    return findings
  }
  try {
    const [row] = await sql.query('to ask for a setting', 'SHOW CLUSTER SETTING kv.rangefeed.enabled')
    const isOn = row?.[0] === 't' || row?.[0] === 'true'
    findings.push(
      isOn
        ? { level: 'ok', subject: 'kv.rangefeed.enabled', message: 'is on' }
        : { level: 'error', subject: 'kv.rangefeed.enabled', message: 'is off', fix: 'SET CLUSTER SETTING kv.rangefeed.enabled = true' },
    )
  } catch (error) {
    failed('kv.rangefeed.enabled', error, 'warning')
  }
  if (config.webhook !== undefined) {
    try {
      await using _ = await WebhookEndpoint.open(config.webhook)
      findings.push({ level: 'ok', subject: 'webhook', message: `can listen at ${config.webhook.host}:${config.webhook.port}` })
    } catch (error) {
      failed('webhook', error, asMillraceError(error).code === 'source.in_use' ? 'warning' : 'error')
    }
  }
  try {
    const reader = new CatalogReader(sql, config)
    const tables = await reader.at((await reader.now()) - 1n)
    if (tables.size === 0) findings.push({ level: 'warning', subject: 'tables', message: 'no table matches the patterns', fix: 'correct `tables`' })
    for (const [id, table] of tables) {
      const granted = await sql.query(
        'to ask for privileges',
        `SELECT privilege_type FROM [SHOW GRANTS ON TABLE ${table.sqlName}]
         WHERE grantee = current_user() OR pg_has_role(current_user(), grantee, 'member') OR grantee = 'public'`,
      )
      const has = new Set(granted.map(([privilege]) => privilege))
      const lacks = ['SELECT', 'CHANGEFEED'].filter((privilege) => !has.has(privilege) && !has.has('ALL'))
      findings.push(
        lacks.length === 0
          ? { level: 'ok', subject: `privileges on ${id}`, message: 'SELECT and CHANGEFEED' }
          : {
              level: lacks.includes('SELECT') || lacks.includes(needs) ? 'error' : 'warning',
              subject: `privileges on ${id}`,
              message: `${lacks.join(' and ')} not granted`,
              fix: `GRANT ${lacks.join(', ')} ON TABLE ${table.sqlName} TO the user`,
            },
      )
      const seconds = await gcSeconds(sql, table)
      const subject = `gc.ttlseconds of ${id}`
      if (seconds !== null && seconds < SHORT_SECONDS) {
        const fix = `ALTER TABLE ${table.sqlName} CONFIGURE ZONE USING gc.ttlseconds = 86400`
        findings.push({ level: 'warning', subject, message: `history is kept for ${seconds} s: a longer absence loses it`, fix })
      } else findings.push({ level: 'ok', subject, message: seconds === null ? 'is that of the database' : `history is kept for ${seconds} s` })
    }
  } catch (error) {
    failed('tables', error)
  }
  return findings
}
