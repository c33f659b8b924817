import { pipeline, Readable } from 'node:stream'
import { createZstdDecompress, zstdDecompressSync } from 'node:zlib'
import { MillraceError } from '../../core/plugin.ts'
import { protocolError } from './mysql-error.ts'
import { readLength } from './wire-connection.ts'

const FIELD = { end: 0, size: 1, compression: 2, uncompressedSize: 3 } as const
const COMPRESSION = { zstd: 0, none: 255 } as const
/** Up to here a payload is read in one call. */
const SMALL_BYTES = 256 * 1024
const CHUNK_BYTES = 256 * 1024

/** The head of a TRANSACTION_PAYLOAD event: events of one transaction, without checksums, follow it at `at`. */
export interface PayloadHead {
  readonly at: number
  readonly isCompressed: boolean
  /** Bytes of the payload, and of the events in it. */
  readonly size: number
  readonly uncompressedSize: number
}

/** Fields of type, length and value, all as length-encoded numbers, until the field 0. @throws source.protocol */
export function readPayloadHead(bytes: Buffer, from: number, end: number, place: string): PayloadHead {
  const fields = new Map<number, number>()
  let at = from
  const number = () => {
    if (at >= end) throw protocolError('the head of a compressed transaction that is cut off', place)
    const { value, next } = readLength(bytes, at)
    at = next
    return value
  }
  for (let field = number(); field !== FIELD.end; field = number()) {
    const length = number()
    fields.set(field, readLength(bytes, at).value)
    at += length
  }
  const size = fields.get(FIELD.size)
  const compression = fields.get(FIELD.compression)
  const uncompressedSize = fields.get(FIELD.uncompressedSize) ?? (compression === COMPRESSION.none ? size : undefined)
  if (at > end || size === undefined || uncompressedSize === undefined || (compression !== COMPRESSION.zstd && compression !== COMPRESSION.none)) {
    throw protocolError(`a compressed transaction of ${size} bytes, ${uncompressedSize} uncompressed, with the compression ${compression}`, place)
  }
  return { at, isCompressed: compression === COMPRESSION.zstd, size, uncompressedSize }
}

/**
 * The events of a payload, in chunks: no more is uncompressed at a time than what is asked for. Each chunk stays as it is until the next is asked for.
 * @throws source.protocol when the payload cannot be read, or is of another size than its head says
 */
export async function* uncompress(head: PayloadHead, pieces: Iterable<Buffer>, place: string): AsyncGenerator<Buffer> {
  let bytes = 0
  try {
    for await (const chunk of head.isCompressed ? chunks(head, pieces) : pieces) {
      bytes += chunk.length
      if (bytes > head.uncompressedSize) break
      yield chunk
    }
  } catch (error) {
    if (error instanceof MillraceError) throw error
    throw protocolError('a compressed transaction that cannot be read', place, error)
  }
  if (bytes !== head.uncompressedSize) throw protocolError(`a compressed transaction that has not the ${head.uncompressedSize} bytes that it should`, place)
}

function chunks(head: PayloadHead, pieces: Iterable<Buffer>): AsyncIterable<Buffer> | Iterable<Buffer> {
  if (head.uncompressedSize <= SMALL_BYTES) return [zstdDecompressSync(Buffer.concat([...pieces]), { maxOutputLength: head.uncompressedSize })]
  const zstd = createZstdDecompress({ chunkSize: CHUNK_BYTES })
  // its errors come out of zstd, too
  pipeline(Readable.from(pieces), zstd, () => {})
  return zstd
}
