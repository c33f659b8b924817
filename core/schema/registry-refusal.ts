import { type ErrorCode, MillraceError } from '../errors.ts'

/**
 * What a registry with Confluent's REST interface answers when it refuses. Its `code` is `error_code` of the answer, whose first three digits
 * are the HTTP status. Source: Confluent, "Schema Registry API Reference".
 */
export class RegistryRefusal extends Error {
  readonly code: number

  constructor(code: number, message: string) {
    super(message)
    this.code = code
  }

  get status(): number {
    return this.code < 1000 ? this.code : Math.trunc(this.code / 100)
  }
}

export const refusals = {
  subjectNotFound: (subject: string) => new RegistryRefusal(40401, `Subject '${subject}' not found.`),
  versionNotFound: (version: number | string) => new RegistryRefusal(40402, `Version ${version} not found.`),
  schemaNotFound: (id?: number) => new RegistryRefusal(40403, id === undefined ? 'Schema not found' : `Schema ${id} not found`),
  subjectSoftDeleted: (subject: string) => new RegistryRefusal(40404, `Subject '${subject}' was soft deleted. Set permanent=true to delete permanently`),
  subjectNotSoftDeleted: (subject: string) => new RegistryRefusal(40405, `Subject '${subject}' was not deleted first before being permanently deleted`),
  versionSoftDeleted: (subject: string, version: number) =>
    new RegistryRefusal(40406, `Subject '${subject}' Version ${version} was soft deleted. Set permanent=true to delete permanently`),
  versionNotSoftDeleted: (subject: string, version: number) =>
    new RegistryRefusal(40407, `Subject '${subject}' Version ${version} was not deleted first before being permanently deleted`),
  noSubjectLevel: (subject: string) => new RegistryRefusal(40408, `Subject '${subject}' does not have subject-level compatibility configured`),
  noSubjectMode: (subject: string) => new RegistryRefusal(40409, `Subject '${subject}' does not have subject-level mode configured`),
  incompatible: (subject: string, details: readonly string[]) =>
    new RegistryRefusal(409, `Schema being registered is incompatible with an earlier schema for subject "${subject}", details: [${details.join('; ')}]`),
  invalidSchema: (why: string) => new RegistryRefusal(42201, `Invalid schema: ${why}`),
  invalidVersion: (version: string) =>
    new RegistryRefusal(42202, `The specified version '${version}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string "latest"`),
  invalidLevel: () =>
    new RegistryRefusal(
      42203,
      'Invalid compatibility level. Valid values are none, backward, forward, full, backward_transitive, forward_transitive, and full_transitive',
    ),
  invalidMode: () => new RegistryRefusal(42204, 'Invalid mode. Valid values are READWRITE, READONLY and IMPORT'),
  notPermitted: (what: string) => new RegistryRefusal(42205, what),
  referenceExists: (subject: string, version: number) =>
    new RegistryRefusal(42206, `One or more references exist to the schema {subject=${subject},version=${version}}.`),
} as const

const FIXES: Partial<Record<ErrorCode, string>> = {
  'schema.incompatible': 'change the table so that old and new data can be read with one schema, or lower the level of the subject (see schemas/README.md)',
  'schema.readonly': 'set the mode of the registry and of the subject to READWRITE',
  'schema.unknown': 'check that the registry is the one that the data was written with',
  'schema.invalid': 'correct the schema',
}

/**
 * The error for a refusal, by its codes alone.
 * @param status HTTP status
 * @param code `error_code` of the answer; -1 when the answer had none, as when it comes from a proxy or from a wrong path
 * @param what what was asked for: `register shop.public.orders-value`
 */
export function errorOfRefusal(status: number, code: number, message: string, what: string, cause?: unknown): MillraceError {
  const kind = errorCode(status, code)
  const facts = kind === 'registry.refused' && (status === 401 || status === 403) ? 'check the credentials of the registry and their rights' : FIXES[kind]
  const wrongPath = status === 404 && code === -1 ? 'check the registry URL: it must be the root of the Confluent API (Apicurio: …/apis/ccompat/v7)' : undefined
  const fix = wrongPath ?? facts
  return new MillraceError(kind, `${what}: ${message}`, { cause, ...(fix === undefined ? {} : { fix }) })
}

function errorCode(status: number, code: number): ErrorCode {
  if (status === 404) return code === -1 ? 'registry.refused' : 'schema.unknown'
  if (status === 409) return 'schema.incompatible'
  if (status === 422 && code === 42201) return 'schema.invalid'
  if (status === 422 && code === 42205) return 'schema.readonly'
  if (status === 408 || status === 429 || status >= 500) return 'registry.unreachable'
  return 'registry.refused'
}
