import { z } from 'zod'
import type { SourceLocation } from '../errors.ts'
import { nearest } from './edit-distance.ts'
import type { Path } from './located-yaml.ts'
import type { MeshFinding } from './mesh-finding.ts'

type JsonSchema = { readonly [key: string]: unknown }
export type Locate = (path: Path, what?: 'key' | 'value') => SourceLocation

/**
 * Turns zod's issues into findings: each at its place and with what to write there, unknown keys one by one with the key that was most likely meant, of a
 * union the branch that came nearest. Values never appear in a message: they may be secrets.
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
      const known = [...schemasAt(json(), issue.path as Path).flatMap(keysOf), ...(issue.path.length === 0 ? extraKeys : [])]
      return issue.keys.map((key) => unknownKey(key, known, locate([...path, key], 'key')))
    }
    return [plainFinding(issue, path, locate, () => schemasAt(json(), issue.path as Path))]
  })
}

function unknownKey(key: string, known: readonly string[], where: SourceLocation): MeshFinding {
  const meant = nearest(key, known)
  const fix = meant !== null ? `write ${meant}` : known.length > 0 ? `one of: ${[...new Set(known)].sort().join(', ')}` : 'remove it'
  return { level: 'error', code: 'config.invalid', message: `unknown key ${key}${meant === null ? '' : `; did you mean ${meant}?`}`, fix, where }
}

function plainFinding(issue: z.core.$ZodIssue, path: Path, locate: Locate, schemas: () => readonly JsonSchema[]): MeshFinding {
  const subject = path.length === 0 ? 'the file' : dotted(path)
  const finding = (message: string, fix: string): MeshFinding => ({
    level: 'error',
    code: 'config.invalid',
    message: `${subject}: ${message}`,
    fix,
    where: locate(path),
  })
  if (issue.code === 'invalid_type') {
    const received = /received (\w+)/.exec(issue.message)?.[1]
    const form = FORMS[issue.expected] ?? `write a value of type ${issue.expected}`
    const added = `add ${String(path.at(-1) ?? 'it')}:`
    const about = aboutSetting(schemas())
    if (received === 'undefined') return finding(`is missing (expected ${issue.expected})`, about === null ? added : `${added} (${about})`)
    return finding(
      `expected ${issue.expected}${received === undefined ? '' : `, not ${received}`}`,
      issue.expected === 'string' && (received === 'number' || received === 'boolean') ? 'put the value in quotes' : form,
    )
  }
  if (issue.code === 'invalid_value') return finding(`expected ${issue.values.map(String).join(' or ')}`, `one of: ${issue.values.map(String).join(', ')}`)
  if (issue.code === 'invalid_union' && 'discriminator' in issue && typeof issue.discriminator === 'string') {
    const options = constantsOf(schemas())
    return finding(`no such ${issue.discriminator}`, options.length > 0 ? `one of: ${options.join(', ')}` : SETTINGS)
  }
  const message = issue.message.charAt(0).toLowerCase() + issue.message.slice(1)
  const rangeFix = issue.code === 'too_small' || issue.code === 'too_big' ? sizeFix(issue, schemas()) : null
  if (rangeFix !== null) return finding(message, rangeFix)
  if (issue.code === 'custom' && SAYS_WHAT_TO_DO.test(message)) return finding('its settings are not complete, or do not go together', message)
  const about = aboutSetting(schemas())
  // zod's own words say what is wrong, those of a setting's declaration what is right
  const isForm = /^expected /.test(message) || (issue.code === 'invalid_format' && !/^invalid /.test(message))
  if (!isForm) return finding(message, about ?? SETTINGS)
  return finding(message, `write ${message.replace(/^expected /, '')}${about === null ? '' : ` (${about})`}`)
}

const SETTINGS = 'docs/reference/settings.md says what it may be'
/** Words of a declaration's own rule that tell the user what to write. */
const SAYS_WHAT_TO_DO = /^(give|set|write|add|name|remove|leave|use) /
const FORMS: Readonly<Record<string, string>> = {
  string: 'write one text in its place',
  number: 'write a number, without quotes',
  int: 'write a whole number, without quotes',
  boolean: 'write true or false, without quotes',
  array: 'write a list: [one, two]',
  object: 'write its settings below it, a line each, indented',
  record: 'write its entries below it, a line each, indented: name: value',
}

/** The sentence that declares a setting. */
function aboutSetting(schemas: readonly JsonSchema[]): string | null {
  const said = schemas.map(({ description }) => description).find((one) => typeof one === 'string')
  return said === undefined ? null : said.replace(/\.$/, '')
}

/** The values by which branches of a union are told apart. */
function constantsOf(schemas: readonly JsonSchema[]): readonly string[] {
  return [...new Set(schemas.map((schema) => schema.const).filter((one) => one !== undefined))].map(String)
}

/** Zod bounds every whole number by what JavaScript can hold; that is nobody's rule. */
function isBound(value: unknown): value is number {
  return typeof value === 'number' && Math.abs(value) !== Number.MAX_SAFE_INTEGER
}

function sizeFix(issue: z.core.$ZodIssueTooSmall | z.core.$ZodIssueTooBig, schemas: readonly JsonSchema[]): string {
  const least = issue.code === 'too_small'
  const limit = String(least ? issue.minimum : issue.maximum)
  if (issue.origin === 'string')
    return least && limit === '1' ? 'write a text that is not empty' : `write ${least ? 'at least' : 'at most'} ${limit} characters`
  if (issue.origin === 'array' || issue.origin === 'set') return `list ${least ? 'at least' : 'at most'} ${limit}`
  const [from, to] = (['minimum', 'maximum'] as const).map((bound) => schemas.map((schema) => schema[bound]).find(isBound))
  if (from !== undefined && to !== undefined) return `write a number from ${from} to ${to}`
  return `write a number of ${least ? 'at least' : 'at most'} ${limit}`
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

/** What is declared of the value at `path`, over all branches of unions. */
function schemasAt(root: JsonSchema, path: Path): readonly JsonSchema[] {
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
  return level
}

function keysOf(schema: JsonSchema): string[] {
  return Object.keys((schema.properties as object | undefined) ?? {})
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
