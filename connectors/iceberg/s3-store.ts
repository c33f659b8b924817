/** Files in an S3 store: whole or in parts up, ranges down. An object is there whole, durable and under its name once its upload is answered. */
import { asMillraceError, type MillraceError } from '../../core/plugin.ts'
import type { FileStore, ListedFile, RandomAccessFile } from './file-store.ts'
import { type AccessTo, partsOf, S3Client, xmlText } from './s3-client.ts'

/** S3 takes parts of 5 MiB and more, and 10,000 of them. */
const PART_BYTES = 8 * 1024 * 1024
const WHOLE_BYTES = 2 * PART_BYTES
const PARTS_AT_ONCE = 2
const REMOVALS_AT_ONCE = 8
/** Read from a file's end when it is opened: small files come whole, of others the footer. */
const TAIL_BYTES = 1024 * 1024

export class S3Store implements FileStore {
  readonly #client: S3Client

  constructor(accessTo: AccessTo) {
    this.#client = new S3Client(accessTo)
  }

  async write(location: string, bytes: Uint8Array): Promise<void> {
    if (bytes.length > WHOLE_BYTES) await this.#writeInParts(location, bytes)
    else await this.#client.send(location, { method: 'PUT', body: bytes, doing: 'write' })
  }

  /** Names are durable with their objects. */
  async syncFolder(): Promise<void> {}

  async replace(location: string, text: string): Promise<void> {
    await this.write(location, Buffer.from(text))
  }

  async read(location: string): Promise<Buffer> {
    return (await this.#client.send(location, { method: 'GET', doing: 'read' })).body
  }

  async open(location: string): Promise<RandomAccessFile> {
    const { headers, body: tail } = await this.#client.send(location, { method: 'GET', headers: { range: `bytes=-${TAIL_BYTES}` }, doing: 'read' })
    const byteLength = Number(/\/(\d+)$/.exec(headers.get('content-range') ?? '')?.[1] ?? tail.length)
    const tailFrom = byteLength - tail.length
    return {
      byteLength,
      slice: async (from, to = byteLength) => {
        const bytes =
          from >= tailFrom
            ? tail.subarray(from - tailFrom, to - tailFrom)
            : (await this.#client.send(location, { method: 'GET', headers: { range: `bytes=${from}-${to - 1}` }, doing: 'read' })).body
        return new Uint8Array(bytes).buffer
      },
      async [Symbol.asyncDispose]() {},
    }
  }

  async remove(locations: Iterable<string>): Promise<readonly MillraceError[]> {
    const failures: MillraceError[] = []
    await inTurns([...locations], REMOVALS_AT_ONCE, async (location) => {
      await this.#client.send(location, { method: 'DELETE', doing: 'delete' }).catch((error: unknown) => failures.push(asMillraceError(error)))
    })
    return failures
  }

  async list(location: string): Promise<readonly ListedFile[]> {
    const { bucket, key } = partsOf(location)
    const files: ListedFile[] = []
    for (let token: string | undefined; ; ) {
      const query = {
        'list-type': '2',
        prefix: `${key}/`,
        delimiter: '/',
        'encoding-type': 'url',
        ...(token === undefined ? {} : { 'continuation-token': token }),
      }
      const { headers, body } = await this.#client.send(`s3://${bucket}/`, { method: 'GET', query, doing: 'list' })
      // the store's own clock, so that ages are right
      const now = Date.parse(headers.get('date') ?? '') || Date.now()
      const xml = body.toString()
      for (const [, entry] of xml.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
        const name = decodeURIComponent((xmlText(entry!, 'Key') ?? '').replaceAll('+', ' ')).slice(key.length + 1)
        // the folder itself, as some tools leave it
        if (name !== '') files.push({ location: `${location}/${name}`, name, ageMs: now - Date.parse(xmlText(entry!, 'LastModified') ?? '') })
      }
      token = xmlText(xml, 'NextContinuationToken')
      if (token === undefined || token === '') return files
    }
  }

  async #writeInParts(location: string, bytes: Uint8Array): Promise<void> {
    const begun = await this.#client.send(location, { method: 'POST', query: { uploads: '' }, doing: 'write' })
    const uploadId = xmlText(begun.body.toString(), 'UploadId')!
    try {
      const parts: { readonly number: number; readonly from: number }[] = []
      const partBytes = Math.max(PART_BYTES, Math.ceil(bytes.length / 9999))
      for (let from = 0; from < bytes.length; from += partBytes) parts.push({ number: parts.length + 1, from })
      const tags: string[] = []
      await inTurns(parts, PARTS_AT_ONCE, async ({ number, from }) => {
        const body = bytes.subarray(from, from + partBytes)
        const { headers } = await this.#client.send(location, { method: 'PUT', query: { partNumber: String(number), uploadId }, body, doing: 'write' })
        tags[number - 1] = headers.get('etag') ?? ''
      })
      const list = tags.map((tag, i) => `<Part><PartNumber>${i + 1}</PartNumber><ETag>${tag.replaceAll('"', '&quot;')}</ETag></Part>`).join('')
      const body = Buffer.from(`<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${list}</CompleteMultipartUpload>`)
      await this.#client.send(location, { method: 'POST', query: { uploadId }, headers: { 'content-type': 'application/xml' }, body, doing: 'write' })
    } catch (error) {
      await this.#client.send(location, { method: 'DELETE', query: { uploadId }, doing: 'write' }).catch(() => {})
      throw error
    }
  }
}

/** Runs `task` on every item, `atOnce` of them at a time; the first error ends it. */
async function inTurns<T>(items: readonly T[], atOnce: number, task: (item: T) => Promise<void>): Promise<void> {
  let next = 0
  const worker = async () => {
    while (next < items.length) await task(items[next++]!)
  }
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, worker))
}
