import { z } from 'zod'
import type { SourceLocation } from '../errors.ts'
import { nearest } from './edit-distance.ts'
import type { Path } from './located-yaml.ts'
import type { MeshFinding } from './mesh-finding.ts'

type JsonSchema = { readonly [key: string]: unknown }
export type Locate = (path: Path, what?: 'key' | 'value') => SourceLocation

/**
 * Turns zod's issues into findings: each at its place, unknown keys one by one with the key that was most likely meant, of a union the branch that
 * came nearest. Values never appear in a message: they may be secrets.
 */
export function zodFindings(
  issues: readonly z.core.$ZodIssue[],
  schema: z.ZodType,
  prefix: Path,
  locate: Locate,
  extraKeys: readonly string[] = [],
): MeshFinding[] {
  let described: JsonSchema | null = null
  const json = (): JsonSchema => (described ??= describe(schema))
  return flatten(issues).flatMap((issue) => {
    const path = [...prefix, ...(issue.path as (string | number)[])]
    if (issue.code === 'unrecognized_keys') {
      const known = [...knownKeys(json(), issue.path as Path), ...(issue.path.length === 0 ? extraKeys : [])]
      return issue.keys.map((key) => unknownKey(key, known, locate([...path, key], 'key')))
    }
    return [plainFinding(issue, path, locate)]
  })
}

function unknownKey(key: string, known: readonly string[], where: SourceLocation): MeshFinding {
  const meant = nearest(key, known)
  const fix = meant !== null ? `write ${meant}` : known.length > 0 ? `one of: ${[...new Set(known)].sort().join(', ')}` : 'remove it'
  return { level: 'error', code: 'config.invalid', message: `unknown key ${key}${meant === null ? '' : `; did you mean ${meant}?`}`, fix, where }
}

function plainFinding(issue: z.core.$ZodIssue, path: Path, locate: Locate): MeshFinding {
  const where = locate(path)
  const subject = path.length === 0 ? 'the file' : dotted(path)
  const finding = (message: string, fix?: string): MeshFinding => ({
    level: 'error',
    code: 'config.invalid',
    message: `${subject}: ${message}`,
    where,
    ...(fix === undefined ? {} : { fix }),
  })
  if (issue.code === 'invalid_type') {
    const received = /received (\w+)/.exec(issue.message)?.[1]
    if (received === 'undefined') return finding(`is missing (expected ${issue.expected})`, `add ${String(path.at(-1) ?? 'it')}:`)
    return finding(
      `expected ${issue.expected}${received === undefined ? '' : `, not ${received}`}`,
      issue.expected === 'string' ? 'put the value in quotes' : undefined,
    )
  }
  if (issue.code === 'invalid_value') return finding(`expected ${issue.values.map(String).join(' or ')}`, `one of: ${issue.values.map(String).join(', ')}`)
  if (issue.code === 'invalid_union' && 'discriminator' in issue && typeof issue.discriminator === 'string') {
    const options = 'options' in issue && Array.isArray(issue.options) ? issue.options.map(String) : []
    return {
      ...finding(`no such ${issue.discriminator}`, options.length > 0 ? `one of: ${options.join(', ')}` : undefined),
      where: locate([...path, issue.discriminator]),
    }
  }
  return finding(issue.message.charAt(0).toLowerCase() + issue.message.slice(1))
}

function dotted(path: Path): string {
  return path.map((part, i) => (typeof part === 'number' ? `[${part}]` : i === 0 ? part : `.${part}`)).join('')
}

/** Replaces the issue of a union by those of the branch that got furthest. */
function flatten(issues: readonly z.core.$ZodIssue[], prefix: readonly PropertyKey[] = []): z.core.$ZodIssue[] {
  return issues.flatMap((issue) => {
    const placed = { ...issue, path: [...prefix, ...issue.path] } as z.core.$ZodIssue
    if (placed.code !== 'invalid_union' || placed.errors.length === 0) return [placed]
    const branches = placed.errors.map((branch) => flatten(branch, placed.path))
    const [best] = branches.toSorted((a, b) => depth(b) - depth(a) || a.length - b.length)
    // all branches failed at the same place: the union's own message says what is expected
    return branches.every((branch) => depth(branch) <= placed.path.length) && placed.message !== 'Invalid input'
      ? [{ ...placed, code: 'custom' } as z.core.$ZodIssue]
      : best!
  })
}

function depth(issues: readonly z.core.$ZodIssue[]): number {
  return Math.max(0, ...issues.map((issue) => issue.path.length + (issue.code === 'unrecognized_keys' ? 1 : 0)))
}

function describe(schema: z.ZodType): JsonSchema {
  return z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }) as JsonSchema
}

/** Keys that objects at `path` may have, over all branches of unions. */
function knownKeys(root: JsonSchema, path: Path): string[] {
  let level: JsonSchema[] = expand(root, root)
  for (const part of path) {
    level = level
      .flatMap((schema) => {
        const next =
          typeof part === 'number' ? schema.items : ((schema.properties as Record<string, unknown> | undefined)?.[part] ?? schema.additionalProperties)
        return typeof next === 'object' && next !== null ? [next as JsonSchema] : []
      })
      .flatMap((schema) => expand(schema, root))
  }
  return level.flatMap((schema) => Object.keys((schema.properties as object | undefined) ?? {}))
}

function expand(schema: JsonSchema, root: JsonSchema): JsonSchema[] {
  const out: JsonSchema[] = [schema]
  for (const branch of ['anyOf', 'oneOf', 'allOf']) {
    const list = schema[branch]
    if (Array.isArray(list)) out.push(...list.flatMap((one) => expand(one as JsonSchema, root)))
  }
  if (typeof schema.$ref === 'string' && schema.$ref.startsWith('#/$defs/')) {
    const target = (root.$defs as Record<string, JsonSchema> | undefined)?.[schema.$ref.slice(8)]
    if (target !== undefined && target !== schema) out.push(...expand(target, root))
  }
  return out
}
