import { addAbortListener } from 'node:events'
import net from 'node:net'
import type { Duplex } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import mysql from 'mysql2'
import { MillraceError, viewOf } from '../../core/plugin.ts'
import { signEd25519 } from './ed25519.ts'
import { mysqlError, ServerError } from './mysql-error.ts'

const FIRST_CAPACITY = 256 * 1024
/** At most so much is read at a time from a socket without TLS. */
const DIRECT_BYTES = 512 * 1024
/** A payload of this length goes on in the next packet. */
const FULL_PACKET = 0xff_ffff
/** A payload of this length or more may be read in pieces. */
const LARGE_BYTES = 1024 * 1024
const CONNECT_TIMEOUT_MS = 15_000
/** After so long without a byte the network is asked whether the server is still there. */
const KEEP_ALIVE_MS = 15_000
const ED25519_CHALLENGE = 32

/** Above this rate the socket is left to fill for a while after it was drained: fewer and larger reads for both sides. */
const BULK_BYTES_PER_MS = 12_000
const BULK_PAUSE_MS = 10
const DRAINED_BYTES = 32 * 1024
const RATE_WINDOW_MS = 20

export const COMMAND = {
  quit: 1,
  query: 3,
  binlogDump: 0x12,
  prepare: 0x16,
  execute: 0x17,
  closeStatement: 0x19,
  binlogDumpGtid: 0x1e,
} as const

export interface ConnectOptions {
  readonly host: string
  readonly port: number
  readonly user: string
  readonly password: string
  readonly ssl: {
    readonly ca?: string | undefined
    readonly cert?: string | undefined
    readonly key?: string | undefined
    readonly rejectUnauthorized?: boolean | undefined
  } | null
}

export type Row = readonly (string | null)[]

/** A socket without TLS that reads into one buffer, and stops with each read until it is resumed: no stream, and no buffer for every 64 KB. */
class DirectSocket {
  readonly socket: net.Socket
  readonly bytes = Buffer.from(new ArrayBuffer(DIRECT_BYTES))
  /** Bytes that came and are not taken yet. */
  length = 0
  /** Null: whoever logs in listens to the socket as a stream. */
  onBytes: (() => void) | null = null

  constructor(host: string, port: number) {
    const onread = { buffer: this.bytes, callback: (length: number) => this.#onRead(length) }
    this.socket = net.connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS, onread })
  }

  #onRead(length: number): boolean {
    if (this.onBytes === null) {
      this.socket.emit('data', Buffer.from(this.bytes.subarray(0, length)))
      return true
    }
    this.length = length
    this.onBytes()
    return false
  }
}

/**
 * A connection whose login and TLS `mysql2` makes; then its socket is ours. Bytes are read only while `read` waits, into one buffer in which packets
 * are walked in place. One user at a time.
 */
export class WireConnection implements AsyncDisposable {
  /** The payload that `next` found lies at [packetAt, packetEnd) of these, until the next `read`. */
  bytes: Buffer
  view: DataView
  packetAt = 0
  packetEnd = 0
  readonly threadId: number
  /** Ends the connection when nothing comes for so long while `read` waits; null: it waits for ever. */
  silenceMs: number | null = null
  readonly #socket: Duplex
  readonly #connection: mysql.Connection
  /** Null: with TLS, as a stream. */
  readonly #direct: DirectSocket | null
  #at = 0
  #end = 0
  #wake: (() => void) | null = null
  #interrupted = false
  #nudged = false
  #failure: MillraceError | null = null
  #windowAt = 0
  #windowBytes = 0
  #rate = 0
  #lastRead = 0

  private constructor(connection: mysql.Connection, direct: DirectSocket | null) {
    this.#connection = connection
    this.#direct = direct
    this.threadId = connection.threadId
    this.#socket = streamOf(connection)
    this.bytes = Buffer.from(new ArrayBuffer(FIRST_CAPACITY))
    this.view = viewOf(this.bytes)
    const socket = this.#socket
    socket.removeAllListeners('data')
    socket.pause()
    if (direct === null) socket.on('readable', () => this.#wakeUp())
    else direct.onBytes = () => this.#wakeUp()
    socket.on('error', (error) => this.#fail(mysqlError(error, 'on the connection')))
    socket.on('end', () => this.#fail(new MillraceError('source.unreachable', 'the server ended the connection')))
    socket.on('close', () => this.#fail(new MillraceError('source.unreachable', 'the server closed the connection')))
  }

  /** @throws source.unreachable, also once `signal` aborts; source.forbidden */
  static async connect(options: ConnectOptions, signal?: AbortSignal): Promise<WireConnection> {
    const { host, port, user, password, ssl } = options
    const direct = ssl === null ? new DirectSocket(host, port) : null
    const connection = mysql.createConnection({
      host,
      port,
      user,
      password,
      charset: 'utf8mb4',
      connectTimeout: CONNECT_TIMEOUT_MS,
      // what is sent here is written for the plain protocol
      flags: ['-CLIENT_QUERY_ATTRIBUTES', '-SESSION_TRACK', '-LOCAL_FILES', '-FOUND_ROWS', '-IGNORE_SPACE', '-CONNECT_WITH_DB', '-ODBC'],
      authPlugins: { client_ed25519: () => (challenge) => signEd25519(Buffer.from(password), challenge.subarray(0, ED25519_CHALLENGE)) },
      stream: () => direct?.socket ?? tlsSocket(host, port),
      ...(ssl === null ? {} : { ssl: { ...ssl, verifyIdentity: ssl.rejectUnauthorized !== false } as mysql.SslOptions }),
    })
    connection.on('error', () => {})
    const { promise: connected, resolve, reject } = Promise.withResolvers<void>()
    using _ =
      signal === undefined
        ? null
        : addAbortListener(signal, () => reject(new MillraceError('source.unreachable', 'stopped before the server took the connection')))
    connection.connect((error) => (error ? reject(mysqlError(error, 'to connect')) : resolve()))
    try {
      await connected
    } catch (error) {
      connection.destroy()
      // a socket that is only ended waits for the server
      streamOf(connection).destroy()
      throw error
    }
    return new WireConnection(connection, direct)
  }

  get broken(): boolean {
    return this.#failure !== null
  }

  #wakeUp(): void {
    const wake = this.#wake
    this.#wake = null
    wake?.()
  }

  #fail(error: MillraceError): void {
    this.#failure ??= error
    this.#wakeUp()
  }

  /** Ends the connection at once; whoever waits gets this, or `source.unreachable` with the text. */
  destroy(why: string | MillraceError = 'the connection is closed'): void {
    this.#fail(typeof why === 'string' ? new MillraceError('source.unreachable', why) : why)
    this.#socket.destroy()
  }

  /** Makes a `read` that waits return, with nothing new. */
  nudge(): void {
    this.#nudged = true
    this.#wakeUp()
  }

  /** Makes `read` return false, now and from now on. */
  interrupt(): void {
    this.#interrupted = true
    this.#wakeUp()
  }

  send(command: number, body: Buffer): void {
    const packet = Buffer.allocUnsafe(5 + body.length)
    packet.writeUIntLE(body.length + 1, 0, 3)
    packet[3] = 0
    packet[4] = command
    body.copy(packet, 5)
    this.#socket.write(packet)
  }

  /** Walks to the next whole packet; false when more must be read. A payload in several packets is put together in place. */
  next(): boolean {
    let at = this.#at
    for (;;) {
      if (this.#end - at < 4) return false
      const length = this.bytes.readUIntLE(at, 3)
      if (this.#end - at - 4 < length) return false
      if (length < FULL_PACKET) break
      at += 4 + length
    }
    this.packetAt = this.#at + 4
    this.packetEnd = this.packetAt
    for (let from = this.#at; ; ) {
      const length = this.bytes.readUIntLE(from, 3)
      if (this.packetEnd !== from + 4) this.bytes.copyWithin(this.packetEnd, from + 4, from + 4 + length)
      this.packetEnd += length
      from += 4 + length
      this.#at = from
      if (length < FULL_PACKET) return true
    }
  }

  /** The beginning of a large payload that is still arriving, when `next` found nothing; null: there is none. Valid until the next `read`. */
  get arriving(): Buffer | null {
    if (this.#end - this.#at <= 4 || this.bytes.readUIntLE(this.#at, 3) < LARGE_BYTES) return null
    return this.bytes.subarray(this.#at + 4, this.#end)
  }

  /**
   * The payload that is arriving, a piece at a time, instead of `next`. Each piece is gone when the next is asked for.
   * @param read `read` of this connection, or what calls it; the payload is cut off when it gives false
   */
  async *pieces(read: () => Promise<boolean>): AsyncGenerator<Buffer> {
    for (let length = FULL_PACKET; length === FULL_PACKET; ) {
      while (this.#end - this.#at < 4) if (!(await read())) return
      length = this.bytes.readUIntLE(this.#at, 3)
      this.#at += 4
      for (let left = length; left > 0; ) {
        while (this.#at === this.#end) if (!(await read())) return
        const from = this.#at
        this.#at = Math.min(this.#end, from + left)
        left -= this.#at - from
        yield this.bytes.subarray(from, this.#at)
      }
    }
  }

  /**
   * Waits for more bytes; everything that `next` returned before is gone afterwards.
   * @returns false when `interrupt` was called
   * @throws source.unreachable when the connection ended
   */
  async read(): Promise<boolean> {
    if (this.#interrupted) return false
    if (this.#rate >= BULK_BYTES_PER_MS && this.#lastRead < DRAINED_BYTES) await delay(BULK_PAUSE_MS)
    for (;;) {
      if (this.#interrupted) return false
      if (this.#receive()) return true
      if (this.#failure !== null) throw this.#failure
      if (this.#nudged) {
        this.#nudged = false
        return true
      }
      const { silenceMs } = this
      const silent = silenceMs === null ? undefined : setTimeout(() => this.destroy(`the server was silent for ${silenceMs} ms`), silenceMs)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        this.#direct?.socket.resume()
      })
      clearTimeout(silent)
    }
  }

  #receive(): boolean {
    const direct = this.#direct
    if (direct === null) {
      const chunk = this.#socket.read() as Buffer | null
      if (chunk !== null) this.#take(chunk, chunk.length)
      return chunk !== null
    }
    const { bytes, length } = direct
    direct.length = 0
    if (length > 0) this.#take(bytes, length)
    return length > 0
  }

  #take(chunk: Buffer, length: number): void {
    const held = this.#end - this.#at
    if (this.#end + length > this.bytes.length) {
      if (held + length <= this.bytes.length) this.bytes.copyWithin(0, this.#at, this.#end)
      else {
        const larger = Buffer.from(new ArrayBuffer(Math.max(this.bytes.length * 2, held + length)))
        this.bytes.copy(larger, 0, this.#at, this.#end)
        this.bytes = larger
        this.view = viewOf(larger)
      }
      this.#at = 0
      this.#end = held
    }
    chunk.copy(this.bytes, this.#end, 0, length)
    this.#end += length
    this.#lastRead = length
    this.#windowBytes += length
    const now = performance.now()
    if (now - this.#windowAt <= RATE_WINDOW_MS) return
    this.#rate = this.#windowBytes / (now - this.#windowAt)
    this.#windowAt = now
    this.#windowBytes = 0
  }

  /** The next packet, waited for. @throws ServerError when it is an ERR packet */
  async packet(): Promise<void> {
    while (!this.next()) await this.read()
    if (this.bytes[this.packetAt] === 0xff) throw this.serverError()
  }

  /** Waits for small packets that `next` is yet to find; the last of them is at hand. @throws ServerError when one is an ERR packet */
  async peek(packets = 1): Promise<void> {
    for (;;) {
      const at = this.#at
      let found = 0
      while (found < packets && this.next()) {
        if (this.bytes[this.packetAt] === 0xff) throw this.serverError()
        found++
      }
      this.#at = at
      if (found === packets) return
      await this.read()
    }
  }

  /** The ERR packet at hand. */
  serverError(): ServerError {
    const { bytes, packetAt: at, packetEnd: end } = this
    const errno = bytes.readUInt16LE(at + 1)
    const marked = bytes[at + 3] === 35
    return new ServerError(errno, marked ? bytes.toString('latin1', at + 4, at + 9) : '', bytes.toString('utf8', at + (marked ? 9 : 3), end))
  }

  /** Whether the packet at hand ends a list of packets: an EOF packet. */
  get isEof(): boolean {
    return this.bytes[this.packetAt] === 0xfe && this.packetEnd - this.packetAt < 9
  }

  /** One statement; its rows as the server's own texts. @throws ServerError, source.unreachable */
  async query(sql: string): Promise<readonly Row[]> {
    this.send(COMMAND.query, Buffer.from(sql))
    return await this.#rows()
  }

  /** Statements that the server gets all at once, so that as little as possible happens between them. */
  async queries(statements: readonly string[]): Promise<readonly (readonly Row[])[]> {
    for (const sql of statements) this.send(COMMAND.query, Buffer.from(sql))
    const results: (readonly Row[])[] = []
    for (const _ of statements) results.push(await this.#rows())
    return results
  }

  async #rows(): Promise<readonly Row[]> {
    await this.packet()
    const columns = readLength(this.bytes, this.packetAt).value
    if (columns === 0) return []
    for (let i = 0; i <= columns; i++) await this.packet()
    const rows: Row[] = []
    for (await this.packet(); !this.isEof; await this.packet()) rows.push(this.#textRow(columns))
    return rows
  }

  #textRow(columns: number): Row {
    let at = this.packetAt
    return Array.from({ length: columns }, () => {
      if (this.bytes[at] === 0xfb) {
        at++
        return null
      }
      const { value, next } = readLength(this.bytes, at)
      at = next + value
      return this.bytes.toString('utf8', next, at)
    })
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#failure === null) {
      this.send(COMMAND.quit, Buffer.alloc(0))
      this.#socket.end()
    }
    this.destroy()
    this.#connection.destroy()
  }
}

/** The socket below TLS. Of a host that is an address mysql2 tells node:tls nothing, which would look for `localhost` in the certificate: it takes the socket's. */
function tlsSocket(host: string, port: number): net.Socket {
  return Object.assign(net.connect({ host, port, noDelay: true, keepAlive: true, keepAliveInitialDelay: KEEP_ALIVE_MS }), { _host: host })
}

function streamOf(connection: mysql.Connection): Duplex {
  return (connection as unknown as { readonly stream: Duplex }).stream
}

/** A length-encoded integer. */
export function readLength(bytes: Buffer, at: number): { readonly value: number; readonly next: number } {
  const first = bytes[at]!
  if (first < 0xfb) return { value: first, next: at + 1 }
  if (first === 0xfc) return { value: bytes.readUInt16LE(at + 1), next: at + 3 }
  if (first === 0xfd) return { value: bytes.readUIntLE(at + 1, 3), next: at + 4 }
  return { value: Number(bytes.readBigUInt64LE(at + 1)), next: at + 9 }
}

/** A string literal that means the same under every sql_mode and character set. */
export function literal(text: string): string {
  return `_utf8mb4 x'${Buffer.from(text).toString('hex')}'`
}

export function identifier(name: string): string {
  return `\`${name.replaceAll('`', '``')}\``
}
