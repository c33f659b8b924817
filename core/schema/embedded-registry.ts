import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { MillraceError } from '../errors.ts'
import { type AvroSchema, type NamedTypes, namedTypes, parseAvroSchema } from './avro-schema.ts'
import { breaksAt, type SchemaVersionToCheck } from './compatibility.ts'
import { normalForm } from './normal-form.ts'
import type { CompatibilityLevel, SchemaRegistry, SchemaVersion } from './registry.ts'
import { errorOfRefusal, RegistryRefusal, refusals } from './registry-refusal.ts'
import { type RegistryMode, type SchemaReference, SchemaStore, type StoredSchema, type StoredVersion } from './schema-store.ts'

export interface EmbeddedRegistryOptions {
  /** The SQLite file; made when missing, with its folder. */
  readonly file: string
  /** Level of subjects that have none of their own. Absent: as it was set before, BACKWARD at first. */
  readonly compatibility?: CompatibilityLevel
}

/** What is registered: the text and, when it uses types of other subjects, where those are. */
export interface SchemaToRegister {
  readonly schema: string
  readonly references?: readonly SchemaReference[]
  /** Store the normal form instead of the text as given. */
  readonly normalize?: boolean
  /** Only in mode IMPORT: the id and version that the schema had elsewhere. */
  readonly id?: number
  readonly version?: number
}

/** @throws registry.refused, registry.unreachable */
export async function openEmbeddedRegistry(options: EmbeddedRegistryOptions): Promise<EmbeddedRegistry> {
  try {
    mkdirSync(path.dirname(options.file), { recursive: true })
  } catch (cause) {
    throw new MillraceError('registry.refused', `the folder of the registry ${options.file} cannot be made`, {
      cause,
      fix: 'check `dataDir` and the rights on it',
    })
  }
  const store = new SchemaStore(options.file)
  if (options.compatibility !== undefined && store.setting('', 'compatibility') !== options.compatibility) store.set('', 'compatibility', options.compatibility)
  return new EmbeddedRegistry(store)
}

interface Parsed {
  readonly ast: AvroSchema
  /** Types of the schema and of all that it refers to. */
  readonly types: NamedTypes
  readonly text: string
  /** Equal for equal schemas, however they are spelled. */
  readonly identity: string
  readonly references: readonly SchemaReference[]
}

/**
 * A schema registry in a file. As the port it throws MillraceErrors; `operations` are what the REST interface offers beyond it and throw
 * {@link RegistryRefusal}. Several processes may open the file, and calls may overlap: each is one transaction.
 */
export class EmbeddedRegistry implements SchemaRegistry {
  readonly operations: RegistryOperations
  readonly #store: SchemaStore
  #waiting: Registration[] = []

  constructor(store: SchemaStore) {
    this.#store = store
    this.operations = new RegistryOperations(store)
  }

  /** Calls that come together are one transaction, since each costs a sync. */
  register(subject: string, schema: string): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ subject, schema, resolve, reject })
      if (this.#waiting.length === 1) queueMicrotask(() => this.#registerWaiting())
    })
  }

  #registerWaiting(): void {
    const waiting = this.#waiting
    this.#waiting = []
    try {
      const outcomes = this.operations.registerAll(waiting)
      for (const [i, outcome] of outcomes.entries()) {
        const { subject, resolve, reject } = waiting[i]!
        if (typeof outcome === 'number') resolve(outcome)
        else reject(errorOf(outcome, `register a schema under ${subject}`))
      }
    } catch (error) {
      for (const { reject } of waiting) reject(error)
    }
  }

  async schema(id: number): Promise<string> {
    return this.#port('read a schema', () => this.operations.schema(id).schema)
  }

  async subjects(): Promise<readonly string[]> {
    return this.operations.subjects('live')
  }

  async versions(subject: string): Promise<readonly SchemaVersion[]> {
    const versions = this.#port('list versions', () => this.operations.versions(subject, false))
    return versions.map(({ version, id, schema }) => ({ subject, version, id, schema }))
  }

  async incompatibilities(subject: string, schema: string): Promise<readonly string[]> {
    return this.#port(`check a schema against ${subject}`, () => this.operations.check(subject, { schema }, 'all'))
  }

  async compatibility(subject: string): Promise<CompatibilityLevel> {
    return this.operations.level(subject)
  }

  async setCompatibility(subject: string, level: CompatibilityLevel): Promise<void> {
    this.operations.setLevel(subject, level)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#store[Symbol.dispose]()
  }

  #port<T>(what: string, call: () => T): T {
    try {
      return call()
    } catch (error) {
      throw error instanceof RegistryRefusal ? errorOf(error, what) : error
    }
  }
}

interface Registration {
  readonly subject: string
  readonly schema: string
  readonly resolve: (id: number) => void
  readonly reject: (error: unknown) => void
}

function errorOf(refusal: RegistryRefusal, what: string): MillraceError {
  return errorOfRefusal(refusal.status, refusal.code, refusal.message, what, refusal)
}

/** All that a Confluent registry does with schemas. Subject '' means the whole registry where levels and modes are set. */
export class RegistryOperations {
  readonly #store: SchemaStore
  readonly #parsed = new Map<number, Parsed>()

  constructor(store: SchemaStore) {
    this.#store = store
  }

  register(subject: string, request: SchemaToRegister): number {
    return this.#store.transaction(() => this.#register(subject, request))
  }

  /** In their order and in one transaction; one that is refused leaves the others as they are. */
  registerAll(requests: readonly (SchemaToRegister & { readonly subject: string })[]): readonly (number | RegistryRefusal)[] {
    return this.#store.transaction(() =>
      requests.map((request) => {
        try {
          return this.#register(request.subject, request)
        } catch (error) {
          if (error instanceof RegistryRefusal) return error
          throw error
        }
      }),
    )
  }

  /** Refuses before it writes. */
  #register(subject: string, request: SchemaToRegister): number {
    const parsed = this.#parse(request)
    const versions = this.#store.versions(subject)
    const existing = versions.find((version) => !version.deleted && version.id === this.#store.idOf(parsed.identity))
    if (existing !== undefined && (request.id === undefined || request.id === existing.id)) return existing.id
    const mode = this.mode(subject)
    if (mode === 'READONLY') throw refusals.notPermitted(`Subject ${subject} is in read-only mode`)
    if (request.id !== undefined) {
      if (mode !== 'IMPORT') throw refusals.notPermitted(`Subject ${subject} is not in import mode`)
      return this.#import(subject, parsed, request.id, request.version ?? nextVersion(versions), versions)
    }
    if (mode === 'IMPORT') throw refusals.notPermitted(`Subject ${subject} is not in read-write mode`)
    const breaks = breaksAt(this.level(subject), parsed.ast, this.#toCheck(versions))
    if (breaks.length > 0) throw refusals.incompatible(subject, breaks)
    const id = this.#store.idOf(parsed.identity) ?? this.#store.addSchema(parsed.identity, parsed.text, parsed.references, null)
    this.#store.addVersion(subject, nextVersion(versions), id)
    return id
  }

  #import(subject: string, parsed: Parsed, id: number, version: number, versions: readonly StoredVersion[]): number {
    const there = this.#store.idOf(parsed.identity)
    const taken = this.#store.schema(id)
    if ((there !== null && there !== id) || (taken !== null && there !== id))
      throw refusals.notPermitted(`Overwrite new schema with id ${id} is not permitted.`)
    if (versions.some((existing) => existing.version === version)) throw refusals.notPermitted(`Version ${version} of subject ${subject} exists already`)
    if (taken === null) this.#store.addSchema(parsed.identity, parsed.text, parsed.references, id)
    this.#store.addVersion(subject, version, id)
    return id
  }

  /** The version of a subject that has this very schema. */
  lookUp(subject: string, request: SchemaToRegister, withDeleted: boolean): StoredVersion {
    const versions = this.versions(subject, withDeleted)
    const id = this.#store.idOf(this.#parse(request).identity)
    const found = versions.findLast((version) => version.id === id)
    if (found === undefined) throw refusals.schemaNotFound()
    return found
  }

  /** Deleted schemas can be read until they are deleted permanently: the log may still have their records. */
  schema(id: number): StoredSchema {
    return this.#store.schema(id) ?? fail(refusals.schemaNotFound(id))
  }

  versionsOfId(id: number, withDeleted: boolean): readonly StoredVersion[] {
    this.schema(id)
    return this.#store.versionsOfId(id).filter((version) => withDeleted || !version.deleted)
  }

  subjects(which: 'live' | 'all' | 'deleted'): readonly string[] {
    const live = new Set<string>()
    const all = new Set<string>()
    for (const { subject, deleted } of this.#store.allVersions()) {
      all.add(subject)
      if (!deleted) live.add(subject)
    }
    return [...all].filter((subject) => which === 'all' || live.has(subject) === (which === 'live'))
  }

  versions(subject: string, withDeleted: boolean): readonly StoredVersion[] {
    const versions = this.#store.versions(subject).filter((version) => withDeleted || !version.deleted)
    if (versions.length === 0) throw refusals.subjectNotFound(subject)
    return versions
  }

  allVersions(): readonly StoredVersion[] {
    return this.#store.allVersions().filter((version) => !version.deleted)
  }

  version(subject: string, version: number | 'latest', withDeleted: boolean): StoredVersion {
    const versions = this.versions(subject, withDeleted)
    const found = version === 'latest' ? versions.at(-1) : versions.find((candidate) => candidate.version === version)
    return found ?? fail(refusals.versionNotFound(version))
  }

  referencedBy(subject: string, version: number | 'latest'): readonly number[] {
    return this.#store.referencedBy(subject, this.version(subject, version, false).version)
  }

  /** What the schema would break: against the versions that the level asks for, or against one. A subject that is not there breaks nothing. */
  check(subject: string, request: SchemaToRegister, against: 'all' | 'latest' | number): readonly string[] {
    const parsed = this.#parse(request)
    const versions = this.#toCheck(typeof against === 'number' ? [this.version(subject, against, false)] : this.#store.versions(subject))
    return breaksAt(this.level(subject), parsed.ast, against === 'latest' ? versions.slice(-1) : versions)
  }

  deleteVersion(subject: string, version: number | 'latest', permanent: boolean): number {
    return this.#store.transaction(() => {
      const found = this.version(subject, version, true)
      this.#checkDeletable(subject)
      if (permanent && !found.deleted) throw refusals.versionNotSoftDeleted(subject, found.version)
      if (!permanent && found.deleted) throw refusals.versionSoftDeleted(subject, found.version)
      this.#delete(found, permanent)
      return found.version
    })
  }

  /** @returns the versions that were deleted */
  deleteSubject(subject: string, permanent: boolean): readonly number[] {
    return this.#store.transaction(() => {
      const versions = this.versions(subject, true)
      this.#checkDeletable(subject)
      const live = versions.filter((version) => !version.deleted)
      if (permanent && live.length > 0) throw refusals.subjectNotSoftDeleted(subject)
      if (!permanent && live.length === 0) throw refusals.subjectSoftDeleted(subject)
      const gone = permanent ? versions : live
      for (const version of gone) this.#delete(version, permanent)
      if (permanent) for (const kind of ['compatibility', 'mode'] as const) this.#store.set(subject, kind, null)
      return gone.map(({ version }) => version)
    })
  }

  #checkDeletable(subject: string): void {
    if (this.mode(subject) === 'READONLY') throw refusals.notPermitted(`Subject ${subject} is in read-only mode`)
  }

  #delete(version: StoredVersion, permanent: boolean): void {
    if (this.#store.referencedBy(version.subject, version.version).length > 0) throw refusals.referenceExists(version.subject, version.version)
    if (permanent) {
      this.#store.removeVersion(version.subject, version.version)
      this.#parsed.clear()
    } else this.#store.markDeleted(version.subject, version.version)
  }

  /** The level that counts for a subject. */
  level(subject: string): CompatibilityLevel {
    return this.ownLevel(subject) ?? this.ownLevel('') ?? 'BACKWARD'
  }

  ownLevel(subject: string): CompatibilityLevel | null {
    return this.#store.setting(subject, 'compatibility')
  }

  setLevel(subject: string, level: CompatibilityLevel | null): void {
    this.#store.set(subject, 'compatibility', level)
  }

  mode(subject: string): RegistryMode {
    return this.ownMode(subject) ?? this.ownMode('') ?? 'READWRITE'
  }

  ownMode(subject: string): RegistryMode | null {
    return this.#store.setting(subject, 'mode')
  }

  /** IMPORT wants an empty subject, or `force`: ids that were given before could clash with imported ones. */
  setMode(subject: string, mode: RegistryMode | null, force: boolean): void {
    this.#store.transaction(() => {
      const busy = () => (subject === '' ? this.#store.allVersions() : this.#store.versions(subject)).some((version) => !version.deleted)
      if (mode === 'IMPORT' && !force && busy()) throw refusals.notPermitted('Cannot import since found existing subjects')
      this.#store.set(subject, 'mode', mode)
    })
  }

  #toCheck(versions: readonly StoredVersion[]): readonly SchemaVersionToCheck[] {
    return versions.filter((version) => !version.deleted).map((version) => ({ version: version.version, schema: this.#parsedOf(version).ast }))
  }

  #parsedOf(stored: StoredSchema): Parsed {
    let parsed = this.#parsed.get(stored.id)
    if (parsed === undefined) this.#parsed.set(stored.id, (parsed = this.#parse(stored)))
    return parsed
  }

  #parse(request: SchemaToRegister): Parsed {
    const references = request.references ?? []
    const types = new Map<string, AvroSchema & { readonly name: string }>()
    for (const reference of references) {
      const found = this.#store.versions(reference.subject).find((version) => version.version === reference.version && !version.deleted)
      if (found === undefined) throw refusals.invalidSchema(`no version ${reference.version} of the referenced subject ${reference.subject}`)
      for (const [name, type] of this.#parsedOf(found).types) types.set(name, type)
    }
    let ast: AvroSchema
    try {
      ast = parseAvroSchema(request.schema, types as NamedTypes)
    } catch (error) {
      if (error instanceof MillraceError && error.code === 'schema.invalid') throw refusals.invalidSchema(error.message)
      throw error
    }
    const normal = normalForm(ast, types.keys())
    const plain = references.map(({ name, subject, version }) => ({ name, subject, version }))
    return {
      ast,
      types: new Map([...(types as NamedTypes), ...namedTypes(ast)]),
      text: request.normalize === true ? normal : request.schema,
      identity: plain.length === 0 ? normal : normal + JSON.stringify(plain),
      references: plain,
    }
  }
}

function nextVersion(versions: readonly StoredVersion[]): number {
  return (versions.at(-1)?.version ?? 0) + 1
}

function fail(error: RegistryRefusal): never {
  throw error
}
