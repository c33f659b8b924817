import { addAbortListener } from 'node:events'
import net from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { invariant, MillraceError, viewOf } from '../../core/plugin.ts'
import { connect, cut, endClient } from './catalog-connection.ts'
import { POSTGRES_EPOCH_US, protocolError } from './pgoutput.ts'
import { postgresError, readServerError, type ServerError } from './postgres-error.ts'

/** The socket always fills the buffer from here; what is left of a message is moved in front of it, so that messages lie in one piece. */
const CARRY_BYTES = 256 * 1024
const READ_BYTES = 2 * 1024 * 1024
/** No Postgres message is larger than 1 GB. */
const LARGEST_MESSAGE = 0x4400_0000

/** Above this rate the socket is left to fill for a while after it was drained: the server then sends in bulk for half its CPU. */
const BULK_BYTES_PER_MS = 12_000
const BULK_PAUSE_MS = 20
const DRAINED_BYTES = 256 * 1024
const RATE_WINDOW_MS = 20

/** A live link, however slow, carries a segment of TCP (536 bytes at the least) within the limit of silence: less of a message that is not whole is no progress. */
const TRICKLE_BYTES = 512
const STATUS_TICK_MS = 1000
const CLOSE_MS = 2000

const XLOG_DATA = 119
export const KEEPALIVE = 107

export interface ReplicationConnectionOptions {
  readonly config: pg.ClientConfig
  /** Called with each notice or warning of the server. */
  readonly onNotice: (code: string, message: string) => void
  /** Status is sent at least this often, in milliseconds. */
  readonly statusIntervalMs: number
  /** A server from which nothing comes for so long, or less than a segment of TCP for a message that is not whole, though it was asked for a sign of life, is given up. */
  readonly silenceMs: number
  /** Above this rate the server is made to send in bulk; default: what pays on today's machines. */
  readonly bulkBytesPerMs?: number
}

/**
 * A connection in streaming replication. `pg` makes it (authentication, TLS); after `start` its socket is ours: bytes are read into one reused
 * buffer only while `read` waits, and `next` walks the messages in place. Status goes to the server on a timer of its own, so it stays up while
 * the log is slow. One reader.
 */
export class ReplicationConnection implements AsyncDisposable {
  /** What `next` found lies at [messageAt, messageEnd) of these, until the next `read`. */
  bytes: Buffer
  view: DataView
  messageAt = 0
  messageEnd = 0
  /** Up to here the server's WAL has come. */
  received = 0n
  /** Up to here it is durable in our log; the server may forget it. */
  confirmed = 0n
  /** How often `read` let the socket fill first, so that the server sends in bulk. */
  pauses = 0

  readonly #options: ReplicationConnectionOptions
  readonly #client: pg.Client
  readonly #buffer: Buffer
  #socket: net.Socket
  #direct = false
  #started = false
  /** The server takes status messages. */
  #streaming = false
  #at = CARRY_BYTES
  #end = CARRY_BYTES
  #wake: (() => void) | null = null
  #got = 0
  #interrupted = false
  #failure: MillraceError | null = null
  #status: NodeJS.Timeout | undefined
  #statusAt = 0
  #statusConfirmed = 0n
  /** How long `read` has waited, as ticks counted it: time in which this process did not run is no silence of the server's. */
  #silentMs = 0
  /** Where the unread rest began when it was last read behind it, and how much came since for the same message. */
  #restAt = -1
  #restBytes = 0
  #asked = false
  #explain: (error: Error & ServerError) => MillraceError = (error) => postgresError(error, 'while streaming')

  #windowAt = 0
  #windowBytes = 0
  #rate = 0
  #lastRead = 0

  private constructor(options: ReplicationConnectionOptions) {
    this.#options = options
    this.#buffer = Buffer.from(new ArrayBuffer(CARRY_BYTES + READ_BYTES))
    this.bytes = this.#buffer
    this.view = viewOf(this.#buffer)
    this.#socket = new net.Socket()
    const config = {
      ...options.config,
      query_timeout: options.silenceMs,
      replication: 'database',
      stream: (made: { readonly ssl?: unknown }) => this.#makeSocket(Boolean(made.ssl)),
    }
    this.#client = new pg.Client(config as unknown as pg.ClientConfig)
    this.#client.on('error', () => {})
  }

  /** @throws source.unreachable, also once `signal` aborts; source.forbidden, source.unprepared */
  static async connect(options: ReplicationConnectionOptions, signal?: AbortSignal): Promise<ReplicationConnection> {
    const connection = new ReplicationConnection(options)
    using _ = signal === undefined ? null : addAbortListener(signal, () => connection.destroy())
    try {
      await connect(connection.#client, 'to open a replication connection')
    } catch (error) {
      connection.#socket.destroy()
      throw error
    }
    return connection
  }

  #makeSocket(tls: boolean): net.Socket {
    this.#direct = !tls
    if (tls) this.#socket = new net.Socket()
    else {
      const target = this.#buffer.subarray(CARRY_BYTES)
      // `onread` of the Socket's constructor is documented but missing in @types/node.
      const options = { onread: { buffer: target, callback: (length: number) => this.#onBytes(length) } }
      this.#socket = new net.Socket(options as net.SocketConstructorOpts)
    }
    return this.#socket
  }

  #onBytes(length: number): boolean {
    if (!this.#started) {
      this.#socket.emit('data', Buffer.from(this.#buffer.subarray(CARRY_BYTES, CARRY_BYTES + length)))
      return true
    }
    if (this.#wake === null) {
      this.#fail(new MillraceError('invariant.broken', 'bytes came from the replication socket while nobody read'))
      return false
    }
    this.#got = length
    this.#wakeUp()
    return false
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

  /** A command of the replication protocol before `start`: `IDENTIFY_SYSTEM`. */
  async query(text: string): Promise<readonly Readonly<Record<string, unknown>>[]> {
    try {
      return (await this.#client.query(text)).rows as Record<string, unknown>[]
    } catch (error) {
      throw postgresError(error, `on ${text.split(' ')[0]}`)
    }
  }

  /**
   * Sends a START_REPLICATION command and takes the socket over from `pg`.
   * @throws what `explain` makes of the server's refusal, now or, from `next`, later
   */
  async start(command: string, explain: (error: Error & ServerError) => MillraceError): Promise<void> {
    this.#explain = explain
    const { stream } = (this.#client as unknown as { connection: { stream: net.Socket } }).connection
    this.#socket = stream
    stream.removeAllListeners('data')
    stream.removeAllListeners('error')
    stream.on('error', (error) => this.#fail(postgresError(error, 'while streaming')))
    stream.on('close', () => this.#fail(new MillraceError('source.unreachable', 'Postgres closed the replication connection')))
    stream.on('end', () => this.#fail(new MillraceError('source.unreachable', 'Postgres ended the replication connection')))
    this.#started = true
    if (!this.#direct) stream.on('readable', () => this.#wakeUp())
    const text = Buffer.from(`${command}\0`)
    const message = Buffer.alloc(5)
    message[0] = 81
    message.writeInt32BE(4 + text.length, 1)
    stream.write(Buffer.concat([message, text]))
    this.#statusAt = performance.now()
    const tickMs = Math.min(STATUS_TICK_MS, this.#options.statusIntervalMs / 2, this.#options.silenceMs / 4)
    this.#status = setInterval(() => this.#tick(tickMs), tickMs).unref()
    for (;;) {
      const type = this.#frame()
      if (type === 0) await this.read()
      else if (type === 69) throw explain(readServerError(this.bytes, this.messageAt, this.messageEnd))
      else if (type === 87) break
    }
    this.#streaming = true
  }

  /** Walks to the next whole message inside the protocol's messages. @returns XLOG_DATA, KEEPALIVE, or 0 when more must be read */
  next(): number {
    for (;;) {
      const type = this.#frame()
      switch (type) {
        case 0:
          return 0
        case 100: {
          const kind = this.bytes[this.messageAt]!
          const length = this.messageEnd - this.messageAt
          if ((kind === XLOG_DATA && length > 25) || (kind === KEEPALIVE && length === 18)) return kind
          throw protocolError(`a replication message of ${length} bytes`, kind, Number(this.received))
        }
        case 69:
          throw this.#explain(readServerError(this.bytes, this.messageAt, this.messageEnd))
        case 78: {
          const notice = readServerError(this.bytes, this.messageAt, this.messageEnd)
          this.#options.onNotice(notice.code, notice.message)
          break
        }
        case 83:
          break
        case 67:
        case 90:
        case 99:
          throw new MillraceError('source.unreachable', 'Postgres ended the stream of changes')
        default:
          throw protocolError('an unexpected message', type, Number(this.received))
      }
    }
  }

  /** The next whole message of the frontend/backend protocol: its type, or 0. */
  #frame(): number {
    const at = this.#at
    const held = this.#end - at
    if (held < 5) return 0
    const length = this.view.getInt32(at + 1)
    if (length < 4 || length > LARGEST_MESSAGE) throw protocolError(`a message of ${length} bytes`, this.bytes[at]!, Number(this.received))
    if (length + 1 > held) return 0
    this.messageAt = at + 5
    this.messageEnd = at + 1 + length
    this.#at = this.messageEnd
    return this.bytes[at]!
  }

  /**
   * Waits for more bytes, at most `READ_BYTES`; everything that `next` returned before is gone afterwards.
   * @returns false when `interrupt` was called
   * @throws source.unreachable when the connection ended
   */
  async read(): Promise<boolean> {
    if (this.#interrupted) return false
    if (this.#rate >= (this.#options.bulkBytesPerMs ?? BULK_BYTES_PER_MS) && this.#lastRead < DRAINED_BYTES) {
      this.pauses++
      await delay(BULK_PAUSE_MS)
    }
    // what comes in dribs and drabs for one message, as keepalives do when its length was damaged, is no sign of life
    if (this.#at !== this.#restAt || this.#restBytes >= TRICKLE_BYTES) {
      this.#restBytes = 0
      this.#silentMs = 0
      this.#asked = false
    }
    this.#carry()
    this.#restAt = this.#at
    for (;;) {
      if (this.#failure !== null) throw this.#failure
      if (this.#interrupted) return false
      this.#got = 0
      if (this.#direct) {
        await new Promise<void>((resolve) => {
          this.#wake = resolve
          this.#socket.resume()
        })
      } else {
        const chunk = this.#socket.read() as Buffer | null
        if (chunk === null) {
          await new Promise<void>((resolve) => {
            this.#wake = resolve
          })
          continue
        }
        invariant(chunk.length <= READ_BYTES, 'a read larger than its buffer')
        chunk.copy(this.#buffer, CARRY_BYTES)
        this.#got = chunk.length
      }
      if (this.#got > 0) break
    }
    this.#take(this.#got)
    return true
  }

  /** Moves the unread rest in front of the socket's part of the buffer, or into a buffer of its own when it is large. */
  #carry(): void {
    const held = this.#end - this.#at
    if (held <= CARRY_BYTES) {
      this.bytes.copy(this.#buffer, CARRY_BYTES - held, this.#at, this.#end)
      if (this.bytes !== this.#buffer) {
        this.bytes = this.#buffer
        this.view = viewOf(this.#buffer)
      }
      this.#at = CARRY_BYTES - held
      this.#end = CARRY_BYTES
      return
    }
    if (this.bytes !== this.#buffer && this.bytes.length >= held + READ_BYTES) {
      if (this.#at > 0) this.bytes.copyWithin(0, this.#at, this.#end)
    } else {
      // twice what is there, at the most: a length is believed no further than the bytes that came
      const length = this.view.getInt32(this.#at + 1) + 1
      const larger = Buffer.from(new ArrayBuffer(Math.min(Math.max(length, held), 2 * held) + READ_BYTES))
      this.bytes.copy(larger, 0, this.#at, this.#end)
      this.bytes = larger
      this.view = viewOf(larger)
    }
    this.#at = 0
    this.#end = held
  }

  #take(length: number): void {
    if (this.bytes !== this.#buffer) this.#buffer.copy(this.bytes, this.#end, CARRY_BYTES, CARRY_BYTES + length)
    this.#end += length
    this.#restBytes += length
    this.#lastRead = length
    this.#windowBytes += length
    const now = performance.now()
    // while much is there to read, no timer comes to run
    if (this.#status !== undefined && now - this.#statusAt >= this.#options.statusIntervalMs) this.sendStatus(false)
    if (now - this.#windowAt <= RATE_WINDOW_MS) return
    this.#rate = this.#windowBytes / (now - this.#windowAt)
    this.#windowAt = now
    this.#windowBytes = 0
  }

  /** Cuts the connection: whoever waits for the server gets `source.unreachable`. */
  destroy(): void {
    cut(this.#client)
  }

  /** Makes `read` return false, now and from now on. */
  interrupt(): void {
    this.#interrupted = true
    this.#wakeUp()
  }

  #tick(tickMs: number): void {
    // while nobody reads, nothing can be heard
    if (this.#wake !== null) this.#silentMs += tickMs
    const { silenceMs } = this.#options
    if (this.#silentMs >= silenceMs) {
      const what = this.#restBytes > 0 ? 'has not ended a message' : 'has been silent'
      this.#fail(
        new MillraceError('source.unreachable', `Postgres ${what} for ${silenceMs} ms on the replication connection, asked for a sign of life`, {
          fix: 'check that the server runs and that the network to it passes',
        }),
      )
    } else if (!this.#asked && this.#silentMs >= silenceMs / 2) {
      this.#asked = true
      this.sendStatus(true)
    }
    const since = performance.now() - this.#statusAt
    if (since >= this.#options.statusIntervalMs || this.confirmed !== this.#statusConfirmed) this.sendStatus(false)
  }

  /** Standby status update: what was received and what is confirmed; `ask` for a keepalive in return. */
  sendStatus(ask: boolean): void {
    if (!this.#streaming || this.#failure !== null) return
    const message = Buffer.alloc(39)
    message[0] = 100
    message.writeInt32BE(38, 1)
    message[5] = 114
    const received = this.received > this.confirmed ? this.received : this.confirmed
    message.writeBigUInt64BE(received, 6)
    message.writeBigUInt64BE(this.confirmed, 14)
    message.writeBigUInt64BE(this.confirmed, 22)
    message.writeBigInt64BE(BigInt(Date.now()) * 1000n - POSTGRES_EPOCH_US, 30)
    message[38] = ask ? 1 : 0
    this.#socket.write(message)
    this.#statusAt = performance.now()
    this.#statusConfirmed = this.confirmed
  }

  /** Sends the last status and closes. */
  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#status)
    this.interrupt()
    const socket = this.#socket
    if (!this.#started) {
      await endClient(this.#client)
      return
    }
    if (!socket.destroyed) {
      if (this.#failure === null) this.sendStatus(false)
      const farewell = Buffer.from([99, 0, 0, 0, 4, 88, 0, 0, 0, 4])
      await Promise.race([new Promise((resolve) => socket.write(farewell, resolve)), delay(CLOSE_MS, undefined, { ref: false })])
      socket.destroy()
    }
    this.#failure ??= new MillraceError('source.unreachable', 'the replication connection is closed')
  }
}
