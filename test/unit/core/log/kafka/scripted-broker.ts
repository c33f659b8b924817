import net, { type AddressInfo } from 'node:net'
import { BrokerConnection } from '../../../../../core/log/kafka/broker-connection.ts'
import type { KafkaLogOptions } from '../../../../../core/log/kafka/kafka-options.ts'
import { kafkaSettings } from '../../../../../core/log/kafka/kafka-settings.ts'
import { ResponseAssembler } from '../../../../../core/log/kafka/response-assembler.ts'

/** What the header of a request takes before the client id: key, version, correlation id and the id's length. */
const HEADER_BYTES = 10

/** A listener that answers each request with what `answer` makes of it: of the request without its length, to the response after its correlation id. */
export class ScriptedBroker {
  /** The requests so far, without their lengths. */
  readonly asked: Buffer[] = []
  readonly #server: net.Server
  readonly #sockets: net.Socket[] = []

  private constructor(server: net.Server) {
    this.#server = server
  }

  static async start(answer: (request: Buffer) => Buffer): Promise<ScriptedBroker> {
    const server = net.createServer((socket) => {
      const assembler = new ResponseAssembler((request) => {
        broker.asked.push(request)
        const body = answer(request)
        const head = Buffer.alloc(8)
        head.writeInt32BE(4 + body.length, 0)
        request.copy(head, 4, 4, 8)
        socket.write(Buffer.concat([head, body]))
      })
      broker.#sockets.push(socket)
      socket.on('data', (chunk: Buffer) => assembler.push(chunk))
      socket.on('error', () => {})
    })
    const broker = new ScriptedBroker(server)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    return broker
  }

  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  connect(options: Partial<KafkaLogOptions> = {}): Promise<BrokerConnection> {
    const settings = kafkaSettings({ brokers: [this.address], ...options })
    return BrokerConnection.open(settings.brokers[0]!, settings, false)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }
}

/** The fields of a request that is not flexible, after its header. */
export function fieldsOf(request: Buffer): Buffer {
  return request.subarray(HEADER_BYTES + request.readInt16BE(HEADER_BYTES - 2))
}
