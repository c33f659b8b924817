import { createHash } from 'node:crypto'
import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { MillraceError } from '../errors.ts'
import { COMPATIBILITY_LEVELS, type CompatibilityLevel } from './registry.ts'

export const REGISTRY_MODES = ['READWRITE', 'READONLY', 'IMPORT'] as const
export type RegistryMode = (typeof REGISTRY_MODES)[number]

export interface SchemaReference {
  /** Full name of the type. */
  readonly name: string
  readonly subject: string
  readonly version: number
}

export interface StoredSchema {
  readonly id: number
  readonly schema: string
  readonly references: readonly SchemaReference[]
}

export interface StoredVersion extends StoredSchema {
  readonly subject: string
  readonly version: number
  readonly deleted: boolean
}

const TABLES = `
  create table if not exists schemas (id integer primary key autoincrement, identity text not null unique, schema text not null, refs text not null);
  create table if not exists versions (
    subject text not null, version integer not null, id integer not null references schemas (id), deleted integer not null default 0,
    primary key (subject, version)) without rowid;
  create index if not exists versions_by_id on versions (id);
  create table if not exists settings (subject text primary key, compatibility text, mode text) without rowid;`

const VERSION = 'select v.subject, v.version, v.deleted, v.id, s.schema, s.refs from versions v join schemas s using (id)'

/**
 * Schemas, versions and settings in one SQLite file: what the embedded registry keeps. Several processes may use the file; each write is one
 * transaction that is on disk when the call returns. All calls are synchronous and may throw `registry.unreachable` (the file is busy or the disk full).
 */
export class SchemaStore implements Disposable {
  readonly #db: DatabaseSync
  readonly #file: string
  readonly #statements = new Map<string, StatementSync>()

  /** @throws registry.refused when the file is no such store or cannot be opened */
  constructor(file: string) {
    this.#file = file
    try {
      this.#db = new DatabaseSync(file, { timeout: 10_000 })
      this.#db.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on')
      // Opening a store that is there writes nothing, so that a reader does not wait for a writer.
      const there = this.#db.prepare("select count(*) as n from sqlite_schema where name = 'settings'").get()
      if (there?.n === 0) this.#db.exec(`begin immediate; ${TABLES} commit`)
    } catch (cause) {
      throw this.#error(cause, 'registry.refused')
    }
  }

  /** Runs `write` in a transaction that no other writer interleaves with. */
  transaction<T>(write: () => T): T {
    this.#run(() => this.#db.exec('begin immediate'))
    try {
      const result = write()
      this.#run(() => this.#db.exec('commit'))
      return result
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec('rollback')
      throw error
    }
  }

  schema(id: number): StoredSchema | null {
    const row = this.#all('select id, schema, refs from schemas where id = ?', id)[0]
    return row === undefined ? null : stored(row)
  }

  /** The id of a schema that is stored under this identity, or null. */
  idOf(identity: string): number | null {
    const row = this.#all('select id from schemas where identity = ?', digest(identity))[0]
    return row === undefined ? null : (row.id as number)
  }

  /** Stores a schema under its identity, with a new id or the given one. */
  addSchema(identity: string, schema: string, references: readonly SchemaReference[], id: number | null): number {
    const statement = this.#prepare('insert into schemas (id, identity, schema, refs) values (?, ?, ?, ?)')
    return this.#run(() => Number(statement.run(id, digest(identity), schema, JSON.stringify(references)).lastInsertRowid))
  }

  /** Versions of a subject, deleted ones too, rising. */
  versions(subject: string): readonly StoredVersion[] {
    return this.#all(`${VERSION} where v.subject = ? order by v.version`, subject).map(storedVersion)
  }

  versionsOfId(id: number): readonly StoredVersion[] {
    return this.#all(`${VERSION} where v.id = ? order by v.subject, v.version`, id).map(storedVersion)
  }

  allVersions(): readonly StoredVersion[] {
    return this.#all(`${VERSION} order by v.subject, v.version`).map(storedVersion)
  }

  addVersion(subject: string, version: number, id: number): void {
    this.#exec('insert into versions (subject, version, id) values (?, ?, ?)', subject, version, id)
  }

  markDeleted(subject: string, version: number): void {
    this.#exec('update versions set deleted = 1 where subject = ? and version = ?', subject, version)
  }

  /** Removes a version, and its schema when no other version has it. Its id is never given again. */
  removeVersion(subject: string, version: number): void {
    this.#exec('delete from versions where subject = ? and version = ?', subject, version)
    this.#exec('delete from schemas where id not in (select id from versions)')
  }

  /** Ids of schemas, of versions that are not deleted, that refer to this version. */
  referencedBy(subject: string, version: number): readonly number[] {
    const rows = this.#all(
      `select distinct s.id from schemas s join versions v using (id), json_each(s.refs) r
       where v.deleted = 0 and r.value ->> 'subject' = ? and r.value ->> 'version' = ? order by s.id`,
      subject,
      version,
    )
    return rows.map((row) => row.id as number)
  }

  /** The setting of a subject; '' is the whole registry. */
  setting<K extends 'compatibility' | 'mode'>(subject: string, kind: K): (K extends 'mode' ? RegistryMode : CompatibilityLevel) | null
  setting(subject: string, kind: 'compatibility' | 'mode'): string | null {
    const value = this.#all(`select ${kind} as value from settings where subject = ?`, subject)[0]?.value ?? null
    if (value !== null && !([...COMPATIBILITY_LEVELS, ...REGISTRY_MODES] as readonly unknown[]).includes(value)) {
      throw new MillraceError('registry.refused', `the registry in ${this.#file} has an unknown ${kind}: ${String(value)}`)
    }
    return value as string | null
  }

  set(subject: string, kind: 'compatibility' | 'mode', value: CompatibilityLevel | RegistryMode | null): void {
    this.#exec(`insert into settings (subject, ${kind}) values (?, ?) on conflict (subject) do update set ${kind} = excluded.${kind}`, subject, value)
  }

  [Symbol.dispose](): void {
    if (this.#db.isOpen) this.#db.close()
  }

  #all(sql: string, ...values: (string | number | null)[]): Record<string, unknown>[] {
    const statement = this.#prepare(sql)
    return this.#run(() => statement.all(...values))
  }

  #exec(sql: string, ...values: (string | number | null)[]): void {
    const statement = this.#prepare(sql)
    this.#run(() => statement.run(...values))
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql)
    if (statement === undefined) this.#statements.set(sql, (statement = this.#run(() => this.#db.prepare(sql))))
    return statement
  }

  #run<T>(call: () => T): T {
    try {
      return call()
    } catch (cause) {
      throw this.#error(cause, 'invariant.broken')
    }
  }

  /** By SQLite's result code: busy, locked, I/O error and full pass by themselves. */
  #error(cause: unknown, otherwise: 'registry.refused' | 'invariant.broken'): MillraceError {
    const result = Number((cause as { errcode?: unknown }).errcode) & 0xff
    const message = `the registry in ${this.#file}: ${(cause as Error).message}`
    if (result === 5 || result === 6 || result === 10 || result === 13) return new MillraceError('registry.unreachable', message, { cause })
    const unusable = result === 8 || result === 11 || result === 14 || result === 26
    return new MillraceError(unusable ? 'registry.refused' : otherwise, message, {
      cause,
      ...(unusable ? { fix: 'check the file and the rights on its folder; restore it from a backup when it is damaged' } : {}),
    })
  }
}

function stored(row: Record<string, unknown>): StoredSchema {
  return { id: row.id as number, schema: row.schema as string, references: JSON.parse(row.refs as string) }
}

function storedVersion(row: Record<string, unknown>): StoredVersion {
  return { ...stored(row), subject: row.subject as string, version: row.version as number, deleted: row.deleted === 1 }
}

function digest(identity: string): string {
  return createHash('sha256').update(identity).digest('hex')
}
