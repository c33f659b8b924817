import type pg from 'pg'
import { type Finding, type PluginContext, TablePatterns, tableId } from '../../core/plugin.ts'
import { identityFix } from './captured-tables.ts'
import { CatalogConnection } from './catalog-connection.ts'
import { OLDEST_VERSION, WAL_LEVEL_FIX } from './open-postgres.ts'
import { objectName, type PostgresConfig, unsupportedSettings } from './postgres-config.ts'
import { reachServer } from './postgres-hosts.ts'
import { findPublication, listTables, quoteName, type SourceTable, tableName, wholeFix } from './publication.ts'
import { FAILOVER_VERSION, findSlot } from './slot.ts'
import { nameOf } from './stream-form.ts'
import { TEXT_FIX, type TextColumn, textColumns } from './type-mapping.ts'

const NEWEST_TESTED_VERSION = 190_000

interface Facts {
  readonly version: number
  readonly walLevel: string
  readonly superuser: boolean
  readonly replication: boolean
  readonly role: string
  readonly database: string
  readonly mayCreate: boolean
  readonly slotsMax: number
  readonly slotsUsed: number
  readonly sendersMax: number
  readonly sendersUsed: number
  readonly keepMb: number
  readonly standby: boolean
  /** Physical slots that standbys stream from. */
  readonly standbySlots: string[]
  /** synchronized_standby_slots; null before Postgres 17. */
  readonly holdsBackFor: string | null
}

/** Everything that `open` needs, looked at without changing anything; all findings at once. @throws source.unreachable, source.forbidden */
export async function checkPostgres(config: PostgresConfig, context: PluginContext): Promise<readonly Finding[]> {
  await using catalog = new CatalogConnection(await reachServer(config), config.silenceMs)
  return await catalog.run('to look at the server', (client) => findings(client, config, context))
}

async function findings(client: pg.Client, config: PostgresConfig, context: PluginContext): Promise<readonly Finding[]> {
  const { rows } = await client.query<Facts>(
    `select current_setting('server_version_num')::int as version, current_setting('wal_level') as "walLevel", r.rolsuper as superuser,
            r.rolreplication or r.rolsuper or exists (select from pg_roles m where m.rolname = 'rds_replication' and pg_has_role(r.oid, m.oid, 'member')) as replication,
            current_user::text as role, current_database()::text as database, has_database_privilege(current_database(), 'CREATE') as "mayCreate",
            current_setting('max_replication_slots')::int as "slotsMax", (select count(*)::int from pg_replication_slots) as "slotsUsed",
            current_setting('max_wal_senders')::int as "sendersMax", (select count(*)::int from pg_stat_replication) as "sendersUsed",
            (select setting::int from pg_settings where name = 'max_slot_wal_keep_size') as "keepMb", pg_is_in_recovery() as standby,
            (select coalesce(array_agg(slot_name::text order by slot_name), '{}') from pg_replication_slots where slot_type = 'physical') as "standbySlots",
            (select setting from pg_settings where name = 'synchronized_standby_slots') as "holdsBackFor"
       from pg_roles r where r.rolname = current_user`,
  )
  const facts = rows[0]!
  const name = objectName(context.mesh, context.node)
  return [
    ...serverFindings(facts, config),
    ...(await slotFindings(client, facts, config.slot ?? name)),
    ...(await tableFindings(client, facts, config, config.publication ?? name)),
  ]
}

function serverFindings(facts: Facts, config: PostgresConfig): readonly Finding[] {
  const found: Finding[] = []
  const add = (level: Finding['level'], subject: string, message: string, fix?: string) =>
    found.push({ level, subject, message, ...(fix === undefined ? {} : { fix }) })
  const major = Math.trunc(facts.version / 10_000)
  if (facts.version < OLDEST_VERSION) add('error', 'server version', `Postgres ${major} is too old`, 'upgrade to Postgres 14 or later')
  else if (facts.version >= NEWEST_TESTED_VERSION) add('warning', 'server version', `Postgres ${major} is newer than what Millrace was tested with`)
  else add('ok', 'server version', `Postgres ${major}`)
  if (facts.standby) add('error', 'server role', 'it is a standby: a source is read from its primary', 'name the primary; `url` may list all of them')
  if (facts.walLevel === 'logical') add('ok', 'wal_level', 'logical')
  else add('error', 'wal_level', `it is ${facts.walLevel}`, WAL_LEVEL_FIX)
  if (facts.replication) add('ok', 'replication privilege', `role ${facts.role} may replicate`)
  else add('error', 'replication privilege', `role ${facts.role} may not replicate`, `ALTER ROLE ${quoteName(facts.role)} REPLICATION`)
  for (const { subject, message, fix } of unsupportedSettings(config, facts.version)) add('error', subject, message, fix)
  if (facts.sendersUsed >= facts.sendersMax) {
    add(
      'warning',
      'max_wal_senders',
      `all ${facts.sendersMax} are in use`,
      `ALTER SYSTEM SET max_wal_senders = ${facts.sendersMax + 5}; then restart the server`,
    )
  } else add('ok', 'max_wal_senders', `${facts.sendersMax - facts.sendersUsed} of ${facts.sendersMax} free`)
  if (facts.keepMb < 0) {
    add(
      'warning',
      'max_slot_wal_keep_size',
      'no limit: while Millrace is away the server keeps WAL until its disk is full',
      `ALTER SYSTEM SET max_slot_wal_keep_size = '50GB' (what the disk can spare); then reload`,
    )
  } else add('ok', 'max_slot_wal_keep_size', `Millrace may be away for ${facts.keepMb} MB of WAL; then the slot is lost and the tables are read anew`)
  if (facts.holdsBackFor === '' && facts.standbySlots.length > 0) {
    add(
      'warning',
      'synchronized_standby_slots',
      'it is empty: changes are captured before the standbys have them, and a standby promoted without them makes the node halt until its tables are read again',
      `ALTER SYSTEM SET synchronized_standby_slots = '${facts.standbySlots.join(', ')}' (those of standbys that may be promoted); then reload`,
    )
  } else if (facts.holdsBackFor !== null && facts.holdsBackFor !== '') add('ok', 'synchronized_standby_slots', `changes wait for ${facts.holdsBackFor}`)
  return found
}

async function slotFindings(client: pg.Client, facts: Facts, name: string): Promise<readonly Finding[]> {
  const subject = `replication slot ${name}`
  const slot = await findSlot(client, name, facts.version)
  if (slot === null) {
    if (facts.slotsUsed < facts.slotsMax)
      return [{ level: 'ok', subject, message: `will be created; ${facts.slotsMax - facts.slotsUsed} of ${facts.slotsMax} free` }]
    const fix = `drop a slot that is not used, or ALTER SYSTEM SET max_replication_slots = ${facts.slotsMax + 5}; then restart the server`
    return [{ level: 'error', subject, message: `cannot be created: all ${facts.slotsMax} slots are in use`, fix }]
  }
  if (slot.plugin !== 'pgoutput' || slot.database !== facts.database) {
    return [{ level: 'error', subject, message: `belongs to ${slot.plugin} in database ${slot.database}`, fix: 'name another `slot` in the source' }]
  }
  if (slot.walStatus === 'lost' || slot.invalidation !== null) {
    return [{ level: 'error', subject, message: `is invalidated (${slot.invalidation ?? 'its WAL is removed'})`, fix: 'millrace run FILE --resnapshot NODE' }]
  }
  if (slot.walStatus === 'unreserved')
    return [{ level: 'warning', subject, message: 'is about to lose its WAL', fix: 'start the node now, or raise max_slot_wal_keep_size' }]
  if (facts.version >= FAILOVER_VERSION && facts.standbySlots.length > 0 && !slot.failover) {
    const fix = `stop the node; on a replication connection: ALTER_REPLICATION_SLOT ${name} (FAILOVER true)`
    return [{ level: 'warning', subject, message: 'standbys do not follow it: a promotion makes the node halt until its tables are read again', fix }]
  }
  return [{ level: 'ok', subject, message: slot.activePid === null ? 'exists' : `exists and is in use by server process ${slot.activePid}` }]
}

async function tableFindings(client: pg.Client, facts: Facts, config: PostgresConfig, publicationName: string): Promise<readonly Finding[]> {
  const found: Finding[] = []
  const publication = await findPublication(client, publicationName)
  const tables = await listTables(client, publicationName, new TablePatterns(config.tables))
  const subject = `publication ${publicationName}`
  if (publication !== null && publication.omits.length > 0) {
    found.push({ level: 'error', subject, message: `leaves out ${publication.omits.join(', ')}`, fix: wholeFix(publicationName) })
  } else if (publication !== null) found.push({ level: 'ok', subject, message: 'exists' })
  else if (facts.mayCreate) found.push({ level: 'ok', subject, message: 'will be created' })
  else {
    found.push({
      level: 'error',
      subject,
      message: `role ${facts.role} may not create it`,
      fix: `GRANT CREATE ON DATABASE ${quoteName(facts.database)} TO ${quoteName(facts.role)}`,
    })
  }
  if (tables.length === 0) found.push({ level: 'warning', subject: 'tables', message: `no table matches ${config.tables.join(', ')} yet` })
  const { rows } = await client.query<Rights & { oid: string }>(
    `select c.oid::text, has_schema_privilege(c.relnamespace, 'USAGE') as reachable, has_table_privilege(c.oid, 'SELECT') as readable, pg_has_role(c.relowner, 'USAGE') as owned,
            coalesce((select array_agg(a.attname::text order by a.attnum) from pg_attribute a
                       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attlen = -1 and a.attstorage in ('x', 'e')), '{}') as toastable
       from pg_class c where c.oid = any($1::oid[])`,
    [tables.map((table) => table.oid)],
  )
  const rights = new Map(rows.map((row) => [Number(row.oid), row]))
  const asText = await textColumns(
    client,
    tables.map((table) => table.oid),
  )
  for (const table of tables) {
    found.push(...oneTable(table, rights.get(table.oid), publication?.allTables === true, facts.role))
    found.push(...formFinding(table, asText.get(table.oid) ?? [], config.binary))
  }
  return found
}

function formFinding(table: SourceTable, columns: readonly TextColumn[], binary: PostgresConfig['binary']): readonly Finding[] {
  if (columns.length === 0 || binary === false) return []
  const subject = `binary form of ${tableId(table)}`
  const named = columns.map(nameOf).join(', ')
  if (binary === 'auto') {
    const message = `there is none for ${named}: the whole stream comes as text, which costs more`
    return [{ level: 'warning', subject, message, fix: 'nothing has to be done; where it is too slow, give the table a source of its own' }]
  }
  return [{ level: 'error', subject, message: `there is none for ${named}: its changes cannot be read`, fix: TEXT_FIX }]
}

interface Rights {
  /** The role may look into its schema, without which it may do nothing with the table, its own or not. */
  readonly reachable: boolean
  readonly readable: boolean
  readonly owned: boolean
  readonly toastable: readonly string[]
}

function oneTable(table: SourceTable, rights: Rights | undefined, allTables: boolean, role: string): readonly Finding[] {
  const found: Finding[] = []
  const id = tableId(table)
  if (rights === undefined) return found
  const grants: string[] = []
  if (!rights.reachable) grants.push(`GRANT USAGE ON SCHEMA ${quoteName(table.namespace)} TO ${quoteName(role)}`)
  if (!rights.readable) grants.push(`GRANT SELECT ON ${tableName(table)} TO ${quoteName(role)}`)
  if (grants.length > 0) {
    const message = rights.readable ? `role ${role} may not use its schema` : `role ${role} may not read it`
    found.push({ level: 'error', subject: `privileges on ${id}`, message, fix: grants.join('; ') })
  }
  if (!rights.owned && !table.published && !allTables) {
    found.push({
      level: 'error',
      subject: `privileges on ${id}`,
      message: `role ${role} does not own it, so it cannot add it to the publication`,
      fix: `ALTER TABLE ${tableName(table)} OWNER TO ${quoteName(role)}, or create the publication as the owner`,
    })
  }
  if (!table.identified) {
    found.push({
      level: 'error',
      subject: `replica identity of ${id}`,
      message: 'it has no key: Postgres refuses updates and deletes of a published table without replica identity',
      fix: identityFix([table]),
    })
  } else found.push({ level: 'ok', subject: `replica identity of ${id}`, message: table.fullRows ? 'full: old rows are sent whole' : 'by key' })
  if (table.partitions !== null) {
    found.push({
      level: 'warning',
      subject: `partitions of ${id}`,
      message: 'when a single partition is detached, dropped, truncated or rewritten, the whole table is read anew: its targets are emptied and filled again',
    })
  }
  if (!table.fullRows && rights.toastable.length > 0) {
    const columns = rights.toastable.join(', ')
    found.push({
      level: 'ok',
      subject: `large values of ${id}`,
      message: `an update leaves out large values that it did not change (${columns}): sinks keep theirs; REPLICA IDENTITY FULL sends them`,
    })
  }
  return found
}
