/** The Postgres wire protocol from the side of a server, as far as `pg` speaks it: clear-text passwords, simple and unnamed prepared statements, text results. */
import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'
import { freePorts } from './free-ports.ts'

export const TEXT = 25
export const BYTEA = 17

export interface WireResult {
  readonly columns: readonly { readonly name: string; readonly oid: number }[]
  /** Sent as the client takes them: one that does not read holds the iteration. */
  readonly rows: Iterable<readonly (string | null)[]> | AsyncIterable<readonly (string | null)[]>
}

export class WireError extends Error {
  readonly code: string
  constructor(code: string, message: string) {
    super(message)
    this.code = code
  }
}

export interface WireHandler {
  readonly password: string
  /** `isOpen` tells whether the client is still there. @throws WireError, which the client gets */
  query(sql: string, values: readonly (string | null)[], isOpen: () => boolean): WireResult
}

export class PgwireServer implements AsyncDisposable {
  readonly #handler: WireHandler
  readonly #sockets = new Set<Socket>()
  #server: Server
  port = 0

  private constructor(handler: WireHandler) {
    this.#handler = handler
    this.#server = createServer((socket) => this.#serve(socket))
  }

  static async start(handler: WireHandler): Promise<PgwireServer> {
    const server = new PgwireServer(handler)
    server.port = (await freePorts(1))[0]!
    await server.#listen()
    return server
  }

  async #listen(): Promise<void> {
    this.#server.listen(this.port, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  /** Breaks every connection and listens again at the same port. */
  async restart(): Promise<void> {
    await this[Symbol.asyncDispose]()
    this.#server = createServer((socket) => this.#serve(socket))
    await this.#listen()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    if (!this.#server.listening) return
    this.#server.close()
    await once(this.#server, 'close')
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => this.#sockets.delete(socket))
    void new Session(socket, this.#handler).run().catch((error: unknown) => socket.destroy(error as Error))
  }
}

class Session {
  readonly #socket: Socket
  readonly #handler: WireHandler
  #sql = ''
  #values: (string | null)[] = []
  /** An error was sent: everything up to the next Sync is left out. */
  #failed = false

  constructor(socket: Socket, handler: WireHandler) {
    this.#socket = socket
    this.#handler = handler
  }

  async run(): Promise<void> {
    let bytes = Buffer.alloc(0)
    let started = false
    for await (const piece of this.#socket) {
      bytes = Buffer.concat([bytes, piece as Buffer])
      for (;;) {
        const head = started ? 1 : 0
        if (bytes.length < head + 4) break
        const length = bytes.readUInt32BE(head)
        if (bytes.length < head + length) break
        const body = bytes.subarray(head + 4, head + length)
        const type = started ? String.fromCharCode(bytes[0]!) : 'startup'
        bytes = bytes.subarray(head + length)
        // SSLRequest
        if (type === 'startup' && body.readUInt32BE() === 80_877_103) this.#socket.write('N')
        else if (type === 'startup') {
          started = true
          this.#send('R', int32(3))
        } else await this.#take(type, body)
      }
    }
  }

  async #take(type: string, body: Buffer): Promise<void> {
    if (this.#failed && type !== 'S') return
    if (type === 'p') {
      if (body.toString('utf8', 0, body.length - 1) !== this.#handler.password) {
        this.#error('28P01', 'password authentication failed')
        this.#socket.end()
      } else {
        this.#send('R', int32(0))
        this.#send('Z', Buffer.from('I'))
      }
    } else if (type === 'Q') {
      await this.#run(body.toString('utf8', 0, body.length - 1), [])
      this.#send('Z', Buffer.from('I'))
    } else if (type === 'P') {
      const from = body.indexOf(0) + 1
      this.#sql = body.toString('utf8', from, body.indexOf(0, from))
      this.#send('1')
    } else if (type === 'B') {
      let at = body.indexOf(0, body.indexOf(0) + 1) + 1
      at += 2 + 2 * body.readUInt16BE(at)
      const count = body.readUInt16BE(at)
      at += 2
      this.#values = Array.from({ length: count }, () => {
        const length = body.readInt32BE(at)
        at += 4 + Math.max(0, length)
        return length < 0 ? null : body.toString('utf8', at - length, at)
      })
      this.#send('2')
    } else if (type === 'E') await this.#run(this.#sql, this.#values)
    else if (type === 'S') {
      this.#failed = false
      this.#send('Z', Buffer.from('I'))
    } else if (type === 'X') this.#socket.end()
  }

  async #run(sql: string, values: readonly (string | null)[]): Promise<void> {
    try {
      const { columns, rows } = this.#handler.query(sql, values, () => !this.#socket.destroyed)
      const described = columns.map(({ name, oid }) => [cstring(name), int32(0), int16(0), int32(oid), int16(-1), int32(-1), int16(0)])
      this.#send('T', int16(columns.length), ...described.flat())
      let count = 0
      for await (const row of rows) {
        count++
        const cells = row.flatMap((cell) => (cell === null ? [int32(-1)] : [int32(Buffer.byteLength(cell)), Buffer.from(cell)]))
        if (!this.#send('D', int16(row.length), ...cells)) await this.#drained()
        if (this.#socket.destroyed) return
      }
      this.#send('C', cstring(`SELECT ${count}`))
    } catch (error) {
      if (!(error instanceof WireError)) throw error
      this.#error(error.code, error.message)
      this.#failed = this.#sql !== '' && sql === this.#sql
    }
  }

  async #drained(): Promise<void> {
    const over = new AbortController()
    const either = ['drain', 'close'].map((event) => once(this.#socket, event, { signal: over.signal }))
    await Promise.race(either).finally(() => over.abort())
  }

  #error(code: string, message: string): void {
    this.#send('E', cstring('SERROR'), cstring(`C${code}`), cstring(`M${message}`), Buffer.from([0]))
  }

  #send(type: string, ...parts: readonly Buffer[]): boolean {
    const body = Buffer.concat(parts)
    return this.#socket.write(Buffer.concat([Buffer.from(type), int32(body.length + 4), body]))
  }
}

const int16 = (value: number) => {
  const bytes = Buffer.alloc(2)
  bytes.writeInt16BE(value)
  return bytes
}
const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeInt32BE(value)
  return bytes
}
const cstring = (text: string) => Buffer.from(`${text}\0`)
