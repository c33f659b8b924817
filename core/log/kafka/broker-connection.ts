import net from 'node:net'
import tls from 'node:tls'
import { authenticate } from './broker-authentication.ts'
import { KafkaFault } from './kafka-fault.ts'
import type { KafkaSettings } from './kafka-options.ts'
import { alternatingBuffers, ResponseAssembler } from './response-assembler.ts'
import { SASL_AUTHENTICATE, SASL_HANDSHAKE } from './sasl-requests.ts'

const CONNECT_TIMEOUT_MS = 5_000
const READ_BUFFER_BYTES = 256 * 1024
const CORRELATION_BYTES = 4
/** Broker sessions that expire are renewed when this part of them has passed. */
const RENEW_AFTER = 0.8
/** Brokers refuse a session that is renewed within a second. Source: KIP-368. */
const RENEW_AT_LEAST_MS = 1_100

interface Pending {
  readonly correlation: number
  readonly resolve: (body: Buffer) => void
  readonly reject: (error: Error) => void
  readonly timer: NodeJS.Timeout
}

interface Address {
  readonly host: string
  readonly port: number
}

/**
 * One TCP or TLS connection to a broker, authenticated. Requests are pipelined; the broker answers in order. Byte ranges are written as they are,
 * without copying. A connection that failed stays failed: open another one. Why it is ours: docs/decisions/0003-kafka-client.md.
 */
export class BrokerConnection {
  /** Told once when the connection fails. */
  onFailure: (() => void) | null = null
  readonly #socket: net.Socket
  readonly #settings: KafkaSettings
  readonly #pending: Pending[] = []
  #correlation = 0
  #failure: Error | null = null
  /** Requests that wait while the session is renewed; null when none have to. */
  #held: (() => void)[] | null = null
  #renewing = false
  #renewal: NodeJS.Timeout | undefined
  /** When the timer is due, by `performance.now()`. */
  #renewAt = Number.POSITIVE_INFINITY

  private constructor(socket: net.Socket, settings: KafkaSettings) {
    this.#socket = socket
    this.#settings = settings
  }

  /**
   * `reuse`: a response is valid only until the one after the next begins to come.
   * @throws the socket's error, a KafkaFault, or the error of a token
   */
  static async open(address: Address, settings: KafkaSettings, reuse: boolean): Promise<BrokerConnection> {
    let connection: BrokerConnection | null = null
    const assembler = new ResponseAssembler((body) => connection?.answered(body), reuse ? alternatingBuffers() : undefined)
    const take = (chunk: Buffer, end?: number) => {
      try {
        assembler.push(chunk, end)
      } catch (error) {
        socket.destroy(error as Error)
      }
    }
    const socket = connectSocket(address, settings, take)
    connection = new BrokerConnection(socket, settings)
    const opened = connection
    socket.setNoDelay(true)
    socket.on('error', (error) => opened.#fail(error))
    socket.on('close', () => opened.#fail(new KafkaFault('NETWORK_EXCEPTION', `${address.host}:${address.port} closed the connection`)))
    try {
      await connected(socket, settings.tls !== null, address)
      await opened.#authenticate(settings)
    } catch (error) {
      opened.close()
      throw error
    }
    return opened
  }

  get closed(): boolean {
    return this.#failure !== null
  }

  async #authenticate(settings: KafkaSettings): Promise<void> {
    if (settings.sasl === null) return
    const lifetimeMs = await authenticate(this, settings.sasl)
    if (lifetimeMs > 0 && this.#failure === null) {
      const waitMs = Math.max(lifetimeMs * RENEW_AFTER, RENEW_AT_LEAST_MS)
      this.#renewAt = performance.now() + waitMs
      this.#renewal = setTimeout(() => void this.#renew(settings), waitMs)
      this.#renewal.unref()
    }
  }

  /** Source: KIP-368. Only SASL requests may be sent meanwhile. */
  async #renew(settings: KafkaSettings): Promise<void> {
    clearTimeout(this.#renewal)
    this.#renewAt = Number.POSITIVE_INFINITY
    this.#held = []
    this.#renewing = true
    try {
      await this.#authenticate(settings)
    } catch (error) {
      this.#fail(error as Error)
    }
    const held: (() => void)[] = this.#held
    this.#held = null
    this.#renewing = false
    for (const write of held) write()
  }

  /**
   * The parts must stay as they are until it resolves or fails. `flexible`: the request's header ends with tagged fields (none), and so does that of the
   * response, which whoever reads it passes.
   * @returns the response after its correlation id
   */
  request(apiKey: number, apiVersion: number, parts: readonly Buffer[], flexible = false): Promise<Buffer> {
    const { clientId, requestTimeoutMs } = this.#settings
    const isSasl = apiKey === SASL_HANDSHAKE || apiKey === SASL_AUTHENTICATE
    const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
    const write = () => {
      if (this.#failure !== null) return reject(this.#failure)
      const correlation = (this.#correlation = (this.#correlation + 1) & 0x7fffffff)
      const header = requestHeader(apiKey, apiVersion, correlation, clientId, flexible, parts)
      const timer = setTimeout(() => this.#fail(new KafkaFault('REQUEST_TIMED_OUT', `no answer within ${requestTimeoutMs} ms`)), requestTimeoutMs)
      this.#pending.push({ correlation, resolve, reject, timer })
      this.#socket.cork()
      this.#socket.write(header)
      for (const part of parts) this.#socket.write(part)
      this.#socket.uncork()
    }
    // a process that stood still may come here before its timers
    if (performance.now() >= this.#renewAt) void this.#renew(this.#settings)
    if (this.#renewing && !isSasl) this.#held!.push(write)
    else write()
    return promise
  }

  /** Called by the socket for each whole response. */
  private answered(body: Buffer): void {
    const pending = this.#pending.shift()
    if (pending === undefined || body.readInt32BE(0) !== pending.correlation) {
      if (pending !== undefined) this.#pending.unshift(pending)
      this.#fail(new KafkaFault('NETWORK_EXCEPTION', 'the broker answered something that was not asked'))
      return
    }
    clearTimeout(pending.timer)
    pending.resolve(body.subarray(CORRELATION_BYTES))
  }

  #fail(error: Error): void {
    if (this.#failure !== null) return
    this.#failure = error
    this.onFailure?.()
    clearTimeout(this.#renewal)
    this.#socket.destroy()
    for (const { timer, reject } of this.#pending.splice(0)) {
      clearTimeout(timer)
      reject(error)
    }
  }

  /** Ends at once; requests in flight fail. */
  close(): void {
    this.onFailure = null
    this.#fail(new KafkaFault('NETWORK_EXCEPTION', 'the connection was closed'))
  }
}

function connectSocket({ host, port }: Address, settings: KafkaSettings, take: (chunk: Buffer, end?: number) => void): net.Socket {
  if (settings.tls !== null) {
    const named = net.isIP(host) === 0 ? { servername: host } : {}
    const socket = tls.connect({ ...named, ...settings.tls, host, port })
    socket.on('data', (chunk: Buffer) => take(chunk))
    return socket
  }
  const onread = {
    buffer: Buffer.allocUnsafeSlow(READ_BUFFER_BYTES),
    callback: (bytes: number, buffer: Uint8Array) => {
      take(buffer as Buffer, bytes)
      return true
    },
  }
  return net.connect({ host, port, onread })
}

async function connected(socket: net.Socket, secure: boolean, { host, port }: Address): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  const timer = setTimeout(
    () => reject(new KafkaFault('NETWORK_EXCEPTION', `no connection to ${host}:${port} within ${CONNECT_TIMEOUT_MS} ms`)),
    CONNECT_TIMEOUT_MS,
  )
  socket.once(secure ? 'secureConnect' : 'connect', resolve)
  socket.once('error', reject)
  socket.once('close', () => reject(new KafkaFault('NETWORK_EXCEPTION', `${host}:${port} closed the connection at once`)))
  try {
    await promise
  } finally {
    clearTimeout(timer)
  }
}

/** Size, then request header v1 (or v2, which adds empty tagged fields). */
function requestHeader(apiKey: number, apiVersion: number, correlation: number, clientId: string, flexible: boolean, parts: readonly Buffer[]): Buffer {
  const idBytes = Buffer.byteLength(clientId)
  const header = Buffer.allocUnsafe(14 + idBytes + (flexible ? 1 : 0))
  let size = header.length - 4
  for (const part of parts) size += part.length
  header.writeInt32BE(size, 0)
  header.writeInt16BE(apiKey, 4)
  header.writeInt16BE(apiVersion, 6)
  header.writeInt32BE(correlation, 8)
  header.writeInt16BE(idBytes, 12)
  header.write(clientId, 14)
  if (flexible) header[header.length - 1] = 0
  return header
}
