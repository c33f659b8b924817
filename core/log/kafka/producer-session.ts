import { setTimeout as delay } from 'node:timers/promises'
import { stampProducer } from '../../event/record-batch.ts'
import type { Frame } from '../log.ts'
import type { BrokerConnection } from './broker-connection.ts'
import { backOff, type Cluster } from './cluster.ts'
import { faultId, UNKNOWN_SERVER_ERROR } from './error-names.ts'
import { encodeFrame } from './frame-codec.ts'
import { checkCode, hasFault, isFenced, isFinal, KafkaFault } from './kafka-fault.ts'
import { type ProducePart, produce } from './produce-request.ts'
import { addPartitionsToTxn, endTxn, initProducerId, type Producer } from './transaction-requests.ts'

/** How long the coordinator lets a transaction stay open when its producer is silent. */
const TRANSACTION_TIMEOUT_MS = 60_000

/** A frame on its way. Its sequence stays the same however often it is sent within one epoch. */
export interface Shipment {
  readonly frame: Frame
  sequence: number
  acknowledged: boolean
}

export const shipmentOf = (frame: Frame): Shipment => ({ frame, sequence: -1, acknowledged: false })

/**
 * Producer id, epoch, sequences and the open transaction of one transactional id. Speaks for one writer: calls must not overlap, but those of `send`.
 * Source: KIP-98, KIP-360 (bumping the epoch after an error).
 */
export class ProducerSession {
  readonly #cluster: Cluster
  readonly #purpose: string
  readonly #transactional: boolean
  readonly #sequences = new Map<string, number>()
  /** Partitions whose broker has taken a frame of this producer epoch: only then does it hold later ones to their order. */
  readonly #established = new Set<string>()
  #added = new Set<string>()
  #producer: Producer
  #coordinator = -1

  constructor(cluster: Cluster, transactionalId: string, purpose: string, transactional: boolean) {
    this.#cluster = cluster
    this.#producer = { transactionalId, id: -1n, epoch: -1 }
    this.#purpose = purpose
    this.#transactional = transactional
  }

  /**
   * Gets an epoch of its own and aborts the open transaction of this transactional id. `take`: fences whoever has it. `keep`: only if it is still ours.
   * @throws KafkaFault, or the connection's error; PRODUCER_FENCED when somebody took it
   */
  async start(how: 'take' | 'keep'): Promise<void> {
    const before = how === 'take' ? { transactionalId: this.#producer.transactionalId, id: -1n, epoch: -1 } : this.#producer
    const { id, epoch } = await this.#ask(async (connection) => {
      const answer = await initProducerId(connection, before, TRANSACTION_TIMEOUT_MS)
      checkCode(answer.errorCode, this.#of(`transactions of ${TRANSACTION_TIMEOUT_MS} ms`))
      return answer
    })
    this.#producer = { ...before, id, epoch }
    this.#sequences.clear()
    this.#established.clear()
    this.#added = new Set()
  }

  /** Opens the transaction for partitions that are not yet part of it. The one before may still be ending for a few milliseconds. */
  async addPartitions(partitions: Iterable<{ readonly topic: string; readonly partition: number }>): Promise<void> {
    const fresh = new Map<string, { topic: string; partition: number }>()
    for (const { topic, partition } of partitions) {
      const key = `${topic}/${partition}`
      if (!this.#added.has(key)) fresh.set(key, { topic, partition })
    }
    if (fresh.size === 0) return
    const deadline = performance.now() + TRANSACTION_TIMEOUT_MS
    for (;;) {
      try {
        await this.#ask((connection) => this.#add(connection, fresh))
        break
      } catch (error) {
        if (!hasFault(error, 'CONCURRENT_TRANSACTIONS') || performance.now() > deadline) throw error
        await delay(1)
      }
    }
    for (const key of fresh.keys()) this.#added.add(key)
  }

  async #add(connection: BrokerConnection, partitions: ReadonlyMap<string, { readonly topic: string; readonly partition: number }>): Promise<void> {
    const added = await addPartitionsToTxn(connection, this.#producer, [...partitions.values()])
    const codes = new Map(added.map(({ topic, partition, errorCode }) => [`${topic}/${partition}`, errorCode]))
    const faults = [...partitions].flatMap(([key, { topic, partition }]) => {
      const failed = faultId(codes.get(key) ?? UNKNOWN_SERVER_ERROR)
      return failed === null ? [] : [new KafkaFault(failed, this.#of(`topic ${topic} partition ${partition}`))]
    })
    // OPERATION_NOT_ATTEMPTED only says that another partition failed
    const cause = faults.find(isFinal) ?? faults.find(({ id }) => id !== 'OPERATION_NOT_ATTEMPTED') ?? faults[0]
    if (cause !== undefined) throw cause
  }

  connection(leader: number): Promise<BrokerConnection> {
    return this.#cluster.connection(`${this.#purpose}:data`, leader)
  }

  /** False while the broker would take any frame as the partition's first: until one is acknowledged, only one may be under way. */
  isEstablished(topic: string, partition: number): boolean {
    return this.#established.has(`${topic}/${partition}`)
  }

  /** Sends frames of different partitions of one leader. Frames leave in the order of calls. @throws KafkaFault that names the topic; what landed is marked */
  send(connection: BrokerConnection, shipments: readonly Shipment[], compression: Cluster['settings']['compression']): Promise<void> {
    const parts: ProducePart[] = []
    for (const shipment of shipments) {
      const { topic, partition, buffer, end, count } = shipment.frame
      const key = `${topic}/${partition}`
      if (shipment.sequence < 0) {
        shipment.sequence = this.#sequences.get(key) ?? 0
        // sequences wrap to 0 after 2^31 - 1
        this.#sequences.set(key, (shipment.sequence + count) & 0x7fffffff)
      }
      stampProducer(buffer, this.#producer.id, this.#producer.epoch, shipment.sequence, this.#transactional)
      parts.push({ topic, partition, pieces: encodeFrame(buffer, end, compression) })
    }
    return this.#outcome(shipments, produce(connection, this.#transactional ? this.#producer.transactionalId : null, parts))
  }

  async #outcome(shipments: readonly Shipment[], answer: ReturnType<typeof produce>): Promise<void> {
    const results = new Map((await answer).map((result) => [`${result.topic}/${result.partition}`, result]))
    let failure: KafkaFault | null = null
    for (const shipment of shipments) {
      const { topic, partition, end } = shipment.frame
      const result = results.get(`${topic}/${partition}`)
      const failed = faultId(result?.errorCode ?? UNKNOWN_SERVER_ERROR)
      if (failed === null || failed === 'DUPLICATE_SEQUENCE_NUMBER') {
        shipment.acknowledged = true
        this.#established.add(`${topic}/${partition}`)
      } else
        failure ??= new KafkaFault(
          failed,
          `topic ${topic} partition ${partition}, a batch of ${end} bytes${result?.message ? `: ${result.message}` : ''}`,
          topic,
        )
    }
    if (failure !== null) throw failure
  }

  /**
   * Commits, and returns when readers see it: the first answer only says that the outcome is decided; the markers of all partitions are written when
   * the same question is answered again.
   * @throws when the outcome is unknown: INVALID_TXN_STATE, a fenced epoch, or no answer that says more for `unreachableMs`, or for the transaction's timeout
   */
  async commit(): Promise<void> {
    const deadline = performance.now() + TRANSACTION_TIMEOUT_MS
    let heardAt = performance.now()
    for (let attempt = 0, answers = 0; answers < 2; attempt++) {
      try {
        await this.#end(true)
        answers++
        heardAt = performance.now()
      } catch (error) {
        const ending = hasFault(error, 'CONCURRENT_TRANSACTIONS')
        const now = performance.now()
        if (ending) {
          answers = 1
          heardAt = now
        }
        const isLate = now > deadline || now - heardAt > this.#cluster.settings.unreachableMs
        if (isFinal(error) || isFenced(error) || hasFault(error, 'INVALID_TXN_STATE') || isLate) throw error
        await (ending ? delay(1) : backOff(attempt))
      }
    }
    this.#added = new Set()
  }

  /** Aborts what is open, once, so that readers need not wait for the transaction's timeout. */
  async abort(): Promise<void> {
    if (this.#added.size > 0) await this.#end(false)
    this.#added = new Set()
  }

  #end(commit: boolean): Promise<void> {
    return this.#ask(async (connection) => checkCode(await endTxn(connection, this.#producer, commit), this.#of(commit ? 'commit' : 'abort')))
  }

  #of(what: string): string {
    return `transactional id ${this.#producer.transactionalId}, ${what}`
  }

  async #ask<T>(request: (connection: BrokerConnection) => Promise<T>): Promise<T> {
    try {
      if (this.#coordinator < 0) this.#coordinator = await this.#cluster.coordinator(this.#producer.transactionalId)
      return await request(await this.#cluster.connection(`${this.#purpose}:coordinator`, this.#coordinator))
    } catch (error) {
      if (!hasFault(error, 'CONCURRENT_TRANSACTIONS')) this.#coordinator = -1
      throw error
    }
  }

  close(): void {
    this.#cluster.disconnect(`${this.#purpose}:data`)
    this.#cluster.disconnect(`${this.#purpose}:coordinator`)
  }
}
