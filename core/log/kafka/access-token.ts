import { readFile } from 'node:fs/promises'
import { request as httpsRequest, type RequestOptions } from 'node:https'
import { z } from 'zod'
import { MillraceError } from '../../errors.ts'
import { http } from '../../node-http.ts'
import { KafkaFault } from './kafka-fault.ts'
import type { KafkaOauth } from './kafka-options.ts'

const REQUEST_TIMEOUT_MS = 10_000
const MAX_ANSWER_BYTES = 256 * 1024
/** A new token is asked for when this part of its life has passed: before brokers end the session, which they do with the token. */
const RENEW_AFTER = 0.7
/** What a token lives when its endpoint does not say; RFC 6749 only recommends that it does. */
const DEFAULT_LIFETIME_S = 300
/** Between the answer and its use a token must not run out. */
const MARGIN_MS = 2_000

const granted = z.object({ access_token: z.string().min(1), expires_in: z.coerce.number().positive().optional() })

export type TokenProvider = () => Promise<string>

/** A token in a file that something else keeps fresh: read for each session. @returns what gives the token; it throws log.refused */
export function tokenOfFile(file: string): TokenProvider {
  return async () => {
    try {
      const token = (await readFile(file, 'utf8')).trim()
      if (token !== '') return token
    } catch (cause) {
      throw new MillraceError('log.refused', `the token file ${file} cannot be read`, { cause, fix: 'check log.sasl.tokenFile and the rights on the file' })
    }
    throw new MillraceError('log.refused', `the token file ${file} is empty`, { fix: 'check what writes log.sasl.tokenFile' })
  }
}

/**
 * Tokens by the client-credentials grant (RFC 6749, 4.4), shared by all connections and asked for anew well before they expire. While the endpoint is
 * away the token at hand serves as long as it is valid.
 * @returns what gives the token; it throws log.refused when the endpoint refuses, a KafkaFault when it is away
 */
export function tokensOfClient(oauth: KafkaOauth): TokenProvider {
  let token: { readonly text: string; readonly lifetimeMs: number; readonly askedAt: Moment } | null = null
  let asking: Promise<string> | null = null
  const ask = async (): Promise<string> => {
    const askedAt = now()
    try {
      const { access_token: text, expires_in: lifetimeS = DEFAULT_LIFETIME_S } = await grant(oauth)
      token = { text, lifetimeMs: lifetimeS * 1000, askedAt }
    } catch (error) {
      if (error instanceof MillraceError || token === null || msSince(token.askedAt) > token.lifetimeMs - MARGIN_MS) throw error
    }
    return token.text
  }
  return () => {
    if (token !== null && msSince(token.askedAt) < token.lifetimeMs * RENEW_AFTER) return Promise.resolve(token.text)
    asking ??= ask().finally(() => {
      asking = null
    })
    return asking
  }
}

interface Moment {
  readonly epochMs: number
  readonly runMs: number
}

const now = (): Moment => ({ epochMs: Date.now(), runMs: performance.now() })

/** By the clock that says more: one may be set back, the other stands while the machine sleeps. */
const msSince = ({ epochMs, runMs }: Moment) => Math.max(Date.now() - epochMs, performance.now() - runMs)

async function grant(oauth: KafkaOauth): Promise<z.infer<typeof granted>> {
  const { status, text } = await post(oauth)
  const at = new URL(oauth.tokenUrl).host
  if (status === 408 || status === 429 || status >= 500) throw new KafkaFault('NETWORK_EXCEPTION', `the token endpoint ${at} answered HTTP ${status}`)
  if (status !== 200) {
    throw new MillraceError('log.refused', `the token endpoint ${at} refused with HTTP ${status}${reasonOf(text)}`, {
      fix: 'check log.sasl.oauth: tokenUrl, clientId, clientSecret, scope',
    })
  }
  const parsed = granted.safeParse(json(text))
  if (parsed.success) return parsed.data
  throw new MillraceError('log.refused', `what ${at} answered holds no access_token`, {
    fix: 'check log.sasl.oauth.tokenUrl: it must be the token endpoint itself',
  })
}

/** The grant's own words (RFC 6749, 5.2): they hold no secret. */
function reasonOf(text: string): string {
  const parsed = z.object({ error: z.string(), error_description: z.string().optional() }).safeParse(json(text))
  if (!parsed.success) return ''
  const { error, error_description: description } = parsed.data
  return `: ${error}${description === undefined ? '' : ` (${description})`}`
}

function json(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

function post({ tokenUrl, clientId, clientSecret, scope, parameters, ssl }: KafkaOauth): Promise<{ readonly status: number; readonly text: string }> {
  const url = new URL(tokenUrl)
  const body = new URLSearchParams({ grant_type: 'client_credentials', ...(scope === undefined ? {} : { scope }), ...parameters }).toString()
  const form = (text: string) => new URLSearchParams({ '': text }).toString().slice(1)
  const options: RequestOptions = {
    method: 'POST',
    headers: {
      // RFC 6749, 2.3.1: both are form-encoded first
      authorization: `Basic ${Buffer.from(`${form(clientId)}:${form(clientSecret)}`).toString('base64')}`,
      'content-type': 'application/x-www-form-urlencoded',
      'content-length': Buffer.byteLength(body),
      accept: 'application/json',
    },
    timeout: REQUEST_TIMEOUT_MS,
    ...(typeof ssl === 'object' ? ssl : {}),
  }
  return new Promise((resolve, reject) => {
    const request = (url.protocol === 'https:' ? httpsRequest : http.request)(url, options, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => {
        text += part
        if (text.length > MAX_ANSWER_BYTES) request.destroy(new Error('the answer does not end'))
      })
      response.once('error', reject)
      response.once('end', () => resolve({ status: response.statusCode ?? 0, text }))
    })
    request.once('timeout', () =>
      request.destroy(new KafkaFault('NETWORK_EXCEPTION', `the token endpoint ${url.host} did not answer within ${REQUEST_TIMEOUT_MS} ms`)),
    )
    request.once('error', reject)
    request.end(body)
  })
}
