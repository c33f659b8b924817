import { readFileSync } from 'node:fs'
import path from 'node:path'
import { MillraceError, type SourceLocation } from '../errors.ts'

const REFERENCE = /\$\{([^}]*)\}/g
const MASK = '[secret]'
/** Shorter values are not masked: they would hide half of every line and are no secret. */
const MIN_MASKED_CHARS = 4
const MIN_PASSWORD_CHARS = 3

export function hasReference(text: string): boolean {
  return text.includes('${')
}

/**
 * Whether the setting `key` holds a secret that stands in the file itself, and what is to be said of it: an error, or a warning where it opens a server of this
 * machine only, by a URL. Null: it holds none.
 */
export function clearSecretLevel(key: string, text: string): 'error' | 'warning' | null {
  const isNamed = /^(password|secret|clientSecret|token|credential|secretAccessKey|sessionToken)$/i.test(key)
  if ((isNamed && text !== '' && !hasReference(text)) || /-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) return 'error'
  if (passwordsIn(text.replace(REFERENCE, '')).every((password) => password === '')) return null
  return isLocal(text) ? 'warning' : 'error'
}

/** Every host of the URL is this machine. */
function isLocal(url: string): boolean {
  const hosts = /:\/\/(?:[^/?#]*@)?([^/?#]*)/.exec(url)?.[1]?.split(',') ?? []
  return hosts.every((host) => /^(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?$/i.test(host))
}

/** What is wrong with the references of a setting, without resolving them; null when they are well-formed. */
export function referenceProblem(text: string): string | null {
  for (const [whole, inner] of text.matchAll(REFERENCE)) {
    if (!/^(env:[A-Za-z_][A-Za-z0-9_]*|file:.+)$/.test(inner!)) return `${whole} is neither \${env:NAME} nor \${file:path}`
  }
  return /\$\{/.test(text.replace(REFERENCE, '')) ? 'a ${ without its }' : null
}

/**
 * Resolves `${env:NAME}` and `${file:path}` (relative to the mesh file, one trailing line end dropped) when a node opens, and knows every value it
 * gave out, so that it can be masked wherever text leaves the process.
 */
export class Secrets {
  readonly #env: Readonly<Record<string, string | undefined>>
  readonly #dir: string
  readonly #values = new Set<string>()
  #ordered: readonly string[] | null = null

  constructor(options: { readonly env: Readonly<Record<string, string | undefined>>; readonly dir: string }) {
    this.#env = options.env
    this.#dir = options.dir
  }

  /** @throws config.secret_missing, config.invalid */
  resolve(text: string, where: SourceLocation): string {
    const problem = referenceProblem(text)
    if (problem !== null) throw new MillraceError('config.invalid', problem, { where, fix: 'write ${env:NAME} or ${file:path}' })
    const resolved = text.replace(REFERENCE, (_, inner: string) => {
      const value = inner.startsWith('env:') ? this.#fromEnv(inner.slice(4), where) : this.#fromFile(inner.slice(5), where)
      this.remember(value)
      return value
    })
    this.#rememberPassword(resolved)
    return resolved
  }

  /** Masks a value that came from elsewhere: a password that stands in the mesh file in clear. */
  remember(value: string): void {
    if (value.length < MIN_MASKED_CHARS) return
    this.#values.add(value)
    this.#values.add(encodeURIComponent(value))
    this.#values.add(JSON.stringify(value).slice(1, -1))
    this.#ordered = null
    this.#rememberPassword(value)
  }

  /** `text` without any value that this instance gave out, also in their URL- and JSON-escaped forms. */
  redact(text: string): string {
    // I9: every line and error that leaves the process comes through here
    this.#ordered ??= [...this.#values].sort((a, b) => b.length - a.length)
    let out = text
    for (const value of this.#ordered) if (out.includes(value)) out = out.replaceAll(value, MASK)
    return out
  }

  #rememberPassword(value: string): void {
    for (const password of passwordsIn(value)) {
      if (password.length < MIN_PASSWORD_CHARS) continue
      for (const form of [password, safeDecode(password)]) for (const written of [form, JSON.stringify(form).slice(1, -1)]) this.#values.add(written)
      this.#ordered = null
    }
  }

  #fromEnv(name: string, where: SourceLocation): string {
    const value = this.#env[name]
    if (value === undefined || value === '')
      throw new MillraceError('config.secret_missing', `the environment variable ${name} is not set`, { where, fix: `export ${name}=…` })
    return value
  }

  #fromFile(name: string, where: SourceLocation): string {
    const file = path.resolve(this.#dir, name)
    try {
      const value = readFileSync(file, 'utf8').replace(/\r?\n$/, '')
      if (value === '') throw new MillraceError('config.secret_missing', `the secret file ${name} is empty`, { where, fix: `write the secret to ${file}` })
      return value
    } catch (cause) {
      if (cause instanceof MillraceError) throw cause
      throw new MillraceError('config.secret_missing', `the secret file ${name} cannot be read`, { where, cause, fix: `write the secret to ${file}` })
    }
  }
}

/** Passwords of URLs, as they are written there. Not by `URL`, which knows no list of hosts and no unescaped characters. */
function passwordsIn(text: string): readonly string[] {
  const found: string[] = []
  for (const [, rest] of text.matchAll(/[a-z][a-z0-9+.-]*:\/\/(\S+)/gi)) {
    const [authority] = rest!.split(/[/?#]/, 1) as [string]
    // a password with a / that should be escaped: all up to the last @
    const login = /^(.*)@/.exec(authority)?.[1] ?? /^[^/?#:@]+:.*(?=@)/.exec(rest!)?.[0]
    const colon = login?.indexOf(':') ?? -1
    if (colon >= 0) found.push(login!.slice(colon + 1))
    for (const [, password] of rest!.matchAll(/[?&](?:ssl)?password=([^&#\s]+)/gi)) found.push(password!)
  }
  return found
}

/** `text` itself when it is not well-formed. */
export function safeDecode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
