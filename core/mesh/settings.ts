import path from 'node:path'
import type { z } from 'zod'
import { MillraceError } from '../errors.ts'
import type { Json } from '../event/offset.ts'
import type { Path } from './located-yaml.ts'
import { findingsError, type MeshFinding } from './mesh-finding.ts'
import { clearSecretLevel, hasReference, referenceProblem, type Secrets } from './secrets.ts'
import { type Locate, zodFindings } from './zod-findings.ts'

/**
 * Settings of one part of the mesh as they stand in the file: secret references unresolved, so printing one shows no secret. `lint` judges them
 * without secrets, `resolve` gives the typed settings with them.
 */
export class Settings<T> {
  /** As written in the file. */
  readonly raw: Json
  readonly #schema: z.ZodType<T>
  readonly #path: Path
  readonly #locate: Locate
  readonly #frameKeys: readonly string[]

  /** `frameKeys`: keys that the mesh itself takes beside the settings, named in hints. */
  constructor(raw: Json, schema: z.ZodType<T>, at: { readonly path: Path; readonly locate: Locate; readonly frameKeys?: readonly string[] }) {
    this.raw = raw
    this.#schema = schema
    this.#path = at.path
    this.#locate = at.locate
    this.#frameKeys = at.frameKeys ?? []
  }

  /** Findings that can be known without secrets: what only a reference's value can decide is left to `resolve`. */
  lint(): readonly MeshFinding[] {
    const references: Path[] = []
    const findings: MeshFinding[] = []
    walk(this.raw, [], (text, at) => {
      if (!hasReference(text)) return
      references.push(at)
      const problem = referenceProblem(text)
      if (problem !== null) {
        findings.push({
          level: 'error',
          code: 'config.invalid',
          message: problem,
          fix: 'write ${env:NAME} or ${file:path}',
          where: this.#locate([...this.#path, ...at]),
        })
      }
    })
    const parsed = this.#schema.safeParse(this.raw)
    if (!parsed.success) {
      const issues = parsed.error.issues.filter((issue) => !references.some((reference) => isUndecided(issue, reference)))
      findings.push(...zodFindings(issues, this.#schema, this.#path, this.#locate, this.#frameKeys))
    }
    return findings
  }

  /**
   * The typed settings with secrets in place. Paths that begin with ./ or ../ become absolute, from `dir`. A reference in place of a number or a
   * boolean is read as one.
   * @throws config.secret_missing, config.invalid
   */
  resolve(secrets: Secrets, dir: string): T {
    const references: Path[] = []
    const resolved = map(this.raw, [], (text, at) => {
      if (hasReference(text)) references.push(at)
      const value = hasReference(text) ? secrets.resolve(text, this.#locate([...this.#path, ...at])) : text
      if (clearSecretLevel(String(at.at(-1)), text) !== null) secrets.remember(text)
      return /^\.\.?(\/|$)/.test(text) ? path.resolve(dir, value) : value
    })
    const first = this.#schema.safeParse(resolved)
    if (first.success) return first.data
    const retyped = new Map<string, Json>()
    for (const issue of first.error.issues) for (const [at, value] of retypedBy(issue, [], resolved, references) ?? []) retyped.set(at, value)
    const second = this.#schema.safeParse(map(resolved, [], (text, at) => retyped.get(JSON.stringify(at)) ?? text))
    if (second.success) return second.data
    const error = findingsError(zodFindings(second.error.issues, this.#schema, this.#path, this.#locate, this.#frameKeys))
    throw error ?? new MillraceError('config.invalid', 'the settings are wrong', { where: this.#locate(this.#path) })
  }
}

/**
 * What references, by their paths as JSON, must become so that the issue is none: a number or a boolean; of a union the first branch that goes on with such.
 * Null: nothing helps. `base`: what the issue's path begins from.
 */
function retypedBy(issue: z.core.$ZodIssue, base: Path, settings: Json, references: readonly Path[]): ReadonlyMap<string, Json> | null {
  const at = [...base, ...(issue.path as Path)]
  if (issue.code === 'invalid_union') {
    for (const branch of issue.errors) {
      const parts = branch.map((inner) => retypedBy(inner, at, settings, references))
      if (parts.length > 0 && parts.every((part) => part !== null)) return new Map(parts.flatMap((part) => [...part]))
    }
    return null
  }
  if (issue.code !== 'invalid_type' || !references.some((reference) => samePath(reference, at))) return null
  const text = at.reduce<Json | undefined>((value, part) => (value as { readonly [key: string | number]: Json })[part], settings) as string
  if (issue.expected === 'boolean') return /^(true|false)$/.test(text) ? new Map([[JSON.stringify(at), text === 'true']]) : null
  if (issue.expected !== 'number' && issue.expected !== 'int') return null
  return /^-?\d+(\.\d+)?$/.test(text) ? new Map([[JSON.stringify(at), Number(text)]]) : null
}

/** The issue is about the reference itself, or about a whole (a union, a rule over several fields) that the reference is part of. */
function isUndecided(issue: z.core.$ZodIssue, reference: Path): boolean {
  if (samePath(reference, issue.path as Path)) return true
  const isInside = issue.path.every((part, i) => part === reference[i])
  return isInside && (issue.code === 'custom' || issue.code === 'invalid_union')
}

function samePath(a: Path, b: Path): boolean {
  return a.length === b.length && a.every((part, i) => part === b[i])
}

function walk(value: Json, at: Path, visit: (text: string, at: Path) => void): void {
  map(value, at, (text, where) => {
    visit(text, where)
    return text
  })
}

function map(value: Json, at: Path, change: (text: string, at: Path) => Json): Json {
  if (typeof value === 'string') return change(value, at)
  if (Array.isArray(value)) return value.map((item: Json, i) => map(item, [...at, i], change))
  if (value !== null && typeof value === 'object') return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, map(item, [...at, key], change)]))
  return value
}
