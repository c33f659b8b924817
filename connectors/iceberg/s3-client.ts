/** Signed requests to an S3 store: retried while that may help, and errors that say what to do. */
import { createHash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { AwsV4Signer } from 'aws4fetch'
import { MillraceError } from '../../core/plugin.ts'
import type { S3Access } from './s3-access.ts'

const TRIES = 4
const FIRST_RETRY_MS = 150
const TIMEOUT_MS = 60_000
const NO_BODY = new Uint8Array(0)

export interface S3Request {
  readonly method: 'GET' | 'PUT' | 'POST' | 'DELETE'
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Uint8Array
  /** For messages: `write`, `read`. */
  readonly doing: string
}

export interface S3Answer {
  readonly headers: Headers
  readonly body: Buffer
}

/** What S3 answers in its error document. */
interface Refusal {
  readonly status: number
  readonly code: string
  readonly message: string
  readonly headers: Headers
}

/** Gives what it takes to reach a location; `renew` asks for credentials newer than those that were just refused. */
export type AccessTo = (location: string, renew: boolean) => Promise<S3Access>

export class S3Client {
  readonly #accessTo: AccessTo

  constructor(accessTo: AccessTo) {
    this.#accessTo = accessTo
  }

  /** @throws sink.unreachable after some tries, sink.forbidden, config.invalid */
  async send(location: string, request: S3Request): Promise<S3Answer> {
    let renew = false
    for (let attempt = 1; ; attempt++) {
      const access = await this.#accessTo(location, renew)
      let refusal: Refusal
      try {
        const answer = await once(location, access, request)
        if (!('code' in answer)) return answer
        refusal = answer
      } catch (cause) {
        if (attempt >= TRIES)
          throw new MillraceError('sink.unreachable', `${hostOf(location, access)} does not answer: cannot ${request.doing} ${location}`, { cause })
        await delay(pauseMs(attempt))
        continue
      }
      renew = /^(ExpiredToken|TokenRefreshRequired|InvalidToken|ExpiredTokenException)$/.test(refusal.code) && !renew
      if (!renew && !(attempt < TRIES && isPassing(refusal))) throw errorOf(refusal, location, access, request.doing)
      if (!renew) await delay(pauseMs(attempt))
    }
  }
}

async function once(location: string, access: S3Access, { method, query, headers, body = NO_BODY }: S3Request): Promise<S3Answer | Refusal> {
  const signed = await new AwsV4Signer({
    method,
    url: urlOf(location, access, query),
    headers: { ...headers, 'x-amz-content-sha256': createHash('sha256').update(body).digest('hex') },
    accessKeyId: access.accessKeyId,
    secretAccessKey: access.secretAccessKey,
    ...(access.sessionToken === undefined ? {} : { sessionToken: access.sessionToken }),
    service: 's3',
    region: access.region,
  }).sign()
  const response = await fetch(signed.url, {
    method,
    headers: signed.headers,
    redirect: 'manual',
    signal: AbortSignal.timeout(TIMEOUT_MS),
    ...(body.length === 0 && method !== 'PUT' ? {} : { body: body as Uint8Array<ArrayBuffer> }),
  })
  const bytes = Buffer.from(await response.arrayBuffer())
  // some answers come with 200 before the store knows that it fails
  const failed = response.status >= 300 || (method === 'POST' && bytes.includes('<Error>'))
  if (!failed) return { headers: response.headers, body: bytes }
  const text = bytes.subarray(0, 4096).toString()
  return { status: response.status, code: xmlText(text, 'Code') ?? '', message: xmlText(text, 'Message') ?? '', headers: response.headers }
}

/** `s3://bucket/some/key` at its endpoint. */
function urlOf(location: string, access: S3Access, query: Readonly<Record<string, string>> = {}): string {
  const { bucket, key } = partsOf(location)
  const base = new URL(access.endpoint)
  const path = key.split('/').map(encodeURIComponent).join('/')
  const root = base.pathname.replace(/\/$/, '')
  if (access.pathStyle) base.pathname = `${root}/${bucket}${path === '' ? '' : `/${path}`}`
  else {
    base.hostname = `${bucket}.${base.hostname}`
    base.pathname = `${root}/${path}`
  }
  for (const [name, value] of Object.entries(query)) base.searchParams.set(name, value)
  return base.href
}

export function partsOf(location: string): { readonly bucket: string; readonly key: string } {
  const [, bucket, key] = /^s3[an]?:\/\/([^/]+)\/?(.*)$/s.exec(location) ?? []
  if (bucket === undefined) throw new MillraceError('config.invalid', `${location} is not an S3 location`, { fix: 'write s3://bucket/folder' })
  return { bucket, key: key! }
}

export function xmlText(xml: string, tag: string): string | undefined {
  return new RegExp(`<${tag}>([^<]*)</${tag}>`).exec(xml)?.[1]?.replace(/&(amp|lt|gt|quot|apos);/g, (_, name: keyof typeof ENTITIES) => ENTITIES[name])
}

const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

function pauseMs(attempt: number): number {
  return FIRST_RETRY_MS * 4 ** (attempt - 1) * (0.5 + Math.random() / 2)
}

/** Whether the same request may do better in a moment. */
function isPassing({ status, code }: Refusal): boolean {
  return status >= 500 || status === 429 || status === 408 || status === 307 || code === 'RequestTimeout' || code === 'OperationAborted'
}

function hostOf(location: string, access: S3Access): string {
  return `the S3 store at ${new URL(urlOf(location, access)).host}`
}

function errorOf(refusal: Refusal, location: string, access: S3Access, doing: string): MillraceError {
  const { bucket } = partsOf(location)
  const { status, code, headers } = refusal
  const what = `${hostOf(location, access)} refuses to ${doing} ${location}: ${status} ${code} ${refusal.message}`.trimEnd()
  const region = headers.get('x-amz-bucket-region')
  if (code === 'RequestTimeTooSkewed') {
    const server = Date.parse(headers.get('date') ?? '')
    const seconds = Number.isNaN(server) ? '' : ` by ${Math.round(Math.abs(Date.now() - server) / 1000)} s`
    return new MillraceError('sink.unreachable', `this machine's clock and the S3 store's differ${seconds}: ${code}`, {
      fix: 'set the clock of this machine (timedatectl set-ntp true); Millrace goes on by itself then',
    })
  }
  if (code === 'NoSuchBucket') return new MillraceError('config.invalid', what, { fix: `create the bucket ${bucket}, or correct the warehouse's location` })
  if (code === 'AuthorizationHeaderMalformed' || code === 'PermanentRedirect' || status === 301) {
    return new MillraceError('config.invalid', what, {
      fix: region === null ? "set s3.region and s3.endpoint to the bucket's own" : `set s3.region to ${region}, and s3.endpoint to match`,
    })
  }
  if (['SignatureDoesNotMatch', 'InvalidAccessKeyId', 'InvalidToken', 'ExpiredToken'].includes(code)) {
    return new MillraceError('sink.forbidden', what, { fix: 'correct s3.accessKeyId, s3.secretAccessKey and s3.sessionToken, or what the REST catalog vends' })
  }
  if (status === 401 || status === 403) {
    return new MillraceError('sink.forbidden', what, {
      fix: `grant these keys s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket on ${bucket}`,
    })
  }
  if (status === 404 || isPassing(refusal)) return new MillraceError('sink.unreachable', what)
  return new MillraceError('sink.forbidden', what, { fix: 'check warehouse, s3.endpoint, s3.region and s3.pathStyle' })
}
