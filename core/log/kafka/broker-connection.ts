import { type API, Connection, type Reader, Writer } from '@platformatic/kafka'
import { KafkaFault } from './kafka-fault.ts'
import type { KafkaSettings } from './kafka-options.ts'

/**
 * One TCP or TLS connection to a broker, authenticated. Requests are pipelined and answered in order; at most five are in flight, which is what a
 * broker can tell duplicates among. A connection that failed stays failed: open another one.
 */
export class BrokerConnection {
  readonly #connection: Connection
  #closed = false

  private constructor(connection: Connection) {
    this.#connection = connection
    connection.on('close', () => {
      this.#closed = true
    })
  }

  static async open(address: { readonly host: string; readonly port: number }, settings: KafkaSettings): Promise<BrokerConnection> {
    const { sasl, tls } = settings
    const connection = new Connection(settings.clientId, {
      connectTimeout: 5_000,
      requestTimeout: 30_000,
      maxInflights: 5,
      ...(tls === null ? {} : { tls: { ...tls }, tlsServerName: tls.servername ?? address.host }),
      ...(sasl === null ? {} : { sasl: { ...sasl } }),
    })
    // without a listener an error event would end the process; callers see the error in their request
    connection.on('error', () => {})
    try {
      await connection.connect(address.host, address.port)
    } catch (error) {
      connection.socket?.destroy()
      throw error
    }
    return new BrokerConnection(connection)
  }

  get closed(): boolean {
    return this.#closed || !this.#connection.isConnected()
  }

  /** A request that the library encodes and decodes. */
  call<Args extends unknown[], Result>(api: API<Args, Result>, ...args: Args): Promise<Result> {
    return api.async(this.#connection, ...args)
  }

  /** A request of our own bytes (header v1, not flexible). The parts are copied before this returns, so they may be reused then. */
  request(apiKey: number, apiVersion: number, parts: readonly Buffer[]): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const payload = () => {
        const writer = Writer.create()
        for (const part of parts) writer.append(part)
        return writer
      }
      const parse = (_correlation: number, _key: number, _version: number, reader: Reader) => reader.buffer.slice()
      this.#connection.send(apiKey, apiVersion, payload, parse, false, false, (error: Error | null, body?: Buffer) => {
        if (error !== null) reject(error)
        else if (body === undefined) reject(new KafkaFault('NETWORK_EXCEPTION', 'an answer without a body'))
        else resolve(body)
      })
    })
  }

  /** Ends at once; requests in flight fail. */
  close(): void {
    this.#closed = true
    void this.#connection.close().catch(() => {})
    this.#connection.socket?.destroy()
  }
}
