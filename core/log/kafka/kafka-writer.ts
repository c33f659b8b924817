import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError } from '../../errors.ts'
import type { Json } from '../../event/offset.ts'
import type { EncodedBatch, LogWriter, Progress } from '../log.ts'
import { backOff, type Cluster } from './cluster.ts'
import { Flights } from './flights.ts'
import { asLogError, faultOf, isFenced, isFinal } from './kafka-fault.ts'
import { ProducerSession, type Shipment, shipmentOf } from './producer-session.ts'
import { newWriterId, type Ownership, progressFrame, progressPartition, readNodeState } from './progress-topic.ts'

/** A transaction that gathered so much waits for more until `transactionMs`; a smaller one waits for nothing. */
const BULK_BYTES = 256 * 1024
/** A transaction takes no more appends beyond this, which bounds what a failure sends again. */
const GROUP_BYTES = 32 * 1024 * 1024
/** Bytes in one request; a larger frame goes alone. */
const REQUEST_BYTES = 1024 * 1024
/** A writer that takes over needs far less than this to say so; longer silence means that the coordinator timed our transaction out. */
const TAKEOVER_MS = 3_000

interface Append {
  readonly batch: EncodedBatch
  readonly shipments: readonly Shipment[]
  readonly resolve: () => void
  readonly reject: (error: MillraceError) => void
}

/** Appends that land together: one transaction, or in idempotent delivery frames, and the progress of those that landed before them. */
interface Group {
  readonly number: number
  readonly startedAt: number
  readonly appends: Append[]
  /** Appends that are done when this group has landed: its own, or in idempotent delivery those whose progress it brings. */
  readonly done: readonly Append[]
  bytes: number
  /** After a failure a group takes no more. */
  closed: boolean
  claim: Shipment | null
  progress: Shipment | null
}

/**
 * Takes over `node` and gives its writer. Readers see nothing of an append before it resolves (exactly-once), or records shortly before (idempotent).
 * @throws log.unreachable, log.refused, log.fenced when another writer takes over at the same time
 */
export async function openKafkaWriter(cluster: Cluster, node: string): Promise<LogWriter> {
  if (node === '' || node.includes('/'))
    throw new MillraceError('config.invalid', `"${node}" cannot be a node's name in Kafka`, { fix: 'use a name without "/"' })
  const writer = new KafkaWriter(cluster, node)
  await writer.claim()
  return writer
}

class KafkaWriter implements LogWriter {
  progress: Progress = new Map()
  readonly #cluster: Cluster
  readonly #node: string
  readonly #id = newWriterId()
  readonly #session: ProducerSession
  readonly #exactlyOnce: boolean
  readonly #topic: string
  #queue: Append[] = []
  #transaction = 0
  /** Idempotent delivery: the progress partition has taken a record of ours in this turn of the event loop. */
  #owns = false
  #failed: MillraceError | null = null
  #running: Promise<void> | null = null
  #wake: (() => void) | null = null
  #closing = false

  constructor(cluster: Cluster, node: string) {
    this.#cluster = cluster
    this.#node = node
    this.#exactlyOnce = cluster.settings.exactlyOnce
    this.#topic = cluster.settings.progressTopic
    this.#session = new ProducerSession(cluster, `${cluster.settings.transactionalIdPrefix}.${node}`, `writer:${this.#id}`, this.#exactlyOnce)
  }

  async claim(): Promise<void> {
    const state = await this.#cluster.retry(`opening the writer of ${this.#node}`, async (attempt) => {
      if (attempt > 0) this.#cluster.forget([this.#topic])
      await this.#cluster.know([this.#topic])
      await this.#session.start('take')
      const owner = this.#progressShipment(0, new Map())
      if (this.#exactlyOnce) await this.#session.addPartitions([owner.frame])
      await this.#send([owner], null)
      if (this.#exactlyOnce) await this.#session.commit()
      return readNodeState(this.#cluster, this.#topic, this.#node)
    })
    if (state.owner?.writer !== this.#id) throw this.#fenced(null)
    this.progress = state.progress
  }

  append(batch: EncodedBatch): Promise<void> {
    if (this.#failed !== null) return Promise.reject(this.#failed)
    if (this.#closing) return Promise.reject(new MillraceError('log.unreachable', `the writer of ${this.#node} is closed`))
    return new Promise((resolve, reject) => {
      this.#queue.push({ batch, shipments: batch.frames.map(shipmentOf), resolve, reject })
      this.#running ??= this.#run()
      this.#wake?.()
    })
  }

  async #run(): Promise<void> {
    let group: Group | null = null
    let landed: readonly Append[] = []
    try {
      // let appends of the same tick join the first group
      await null
      while (this.#queue.length > 0 || landed.length > 0) {
        group = this.#group(landed)
        await this.#land(group)
        for (const { resolve } of group.done) resolve()
        landed = this.#exactlyOnce ? [] : group.appends
      }
    } catch (error) {
      this.#failed = asLogError(error, `appending for ${this.#node}`, this.#cluster.name)
      if (this.#exactlyOnce && this.#failed.code !== 'log.fenced') await this.#session.abort().catch(() => {})
      for (const { reject } of new Set([...(group?.done ?? []), ...(group?.appends ?? []), ...this.#queue])) reject(this.#failed)
      this.#queue = []
    } finally {
      this.#running = null
    }
  }

  #group(landed: readonly Append[]): Group {
    const number = ++this.#transaction
    const appends: Append[] = []
    const progress = landed.length === 0 ? null : this.#progressShipment(number - 1, mergedProgress(landed))
    const done = this.#exactlyOnce ? appends : landed
    return { number, startedAt: performance.now(), appends, done, bytes: 0, closed: false, claim: null, progress }
  }

  async #land(group: Group): Promise<void> {
    let deadline: number | null = null
    for (let attempt = 0; ; attempt++) {
      try {
        await this.#attempt(group)
        return
      } catch (error) {
        group.closed = true
        deadline ??= performance.now() + this.#cluster.settings.unreachableMs
        if (isFinal(error) || this.#closing || performance.now() > deadline) throw error
        await backOff(attempt)
        this.#cluster.forget([this.#topic, ...group.appends.flatMap(({ batch }) => batch.frames.map(({ topic }) => topic))])
        if (await this.#recover(group, error, attempt)) return
      }
    }
  }

  #attempt(group: Group): Promise<void> {
    return this.#exactlyOnce ? this.#transact(group) : this.#ship(group)
  }

  /** One try at a transaction: takes appends that come meanwhile, ends with the commit. */
  async #transact(group: Group): Promise<void> {
    const flights = new Flights()
    try {
      let isWhole = false
      for (let sent = 0; !isWhole; ) {
        flights.check()
        this.#take(group)
        if (sent < group.appends.length) {
          const shipments = group.appends.slice(sent).flatMap((append) => append.shipments)
          sent = group.appends.length
          await this.#cluster.know([this.#topic, ...shipments.map(({ frame }) => frame.topic)])
          isWhole = group.bytes < BULK_BYTES
          // I5: the progress is of the same transaction
          if (isWhole) shipments.push(this.#sealed(group))
          await this.#session.addPartitions([this.#progressPlace(), ...shipments.map(({ frame }) => frame)])
          await this.#send(shipments, flights)
          continue
        }
        const waitMs = this.#waitMs(group, flights)
        if (waitMs <= 0) break
        await this.#nextEvent(flights, waitMs)
      }
      if (!isWhole) await this.#send([this.#sealed(group)], flights)
      await flights.landed()
    } finally {
      // a frame that is still under way must not overtake what is sent next
      await flights.settled()
    }
    await this.#session.commit()
  }

  /** One try in idempotent delivery: the progress of what landed before, which needs no round trip of its own, and the frames of what waits now. */
  async #ship(group: Group): Promise<void> {
    const flights = new Flights()
    try {
      this.#take(group)
      group.closed = true
      const frames = group.appends.flatMap((append) => append.shipments)
      await this.#cluster.know([this.#topic, ...frames.map(({ frame }) => frame.topic)])
      if (!this.#owns && frames.length > 0) await this.#claimBefore(group)
      await this.#send(group.progress === null ? frames : [group.progress, ...frames], flights)
      await flights.landed()
      if (group.progress !== null) this.#owned()
    } finally {
      await flights.settled()
    }
  }

  /** Milliseconds for which the group still waits for more; 0 closes it. */
  #waitMs(group: Group, flights: Flights): number {
    const { transactionMs } = this.#cluster.settings
    const left = transactionMs - (performance.now() - group.startedAt)
    if (group.closed || group.bytes >= GROUP_BYTES || left <= 0) return 0
    if (flights.count > 0) return left
    return Math.min(left, transactionMs / 5 - flights.idleMs)
  }

  /** The progress of a group that takes no more appends. */
  #sealed(group: Group): Shipment {
    group.closed = true
    group.progress ??= this.#progressShipment(group.number, mergedProgress(group.appends))
    return group.progress
  }

  #take(group: Group): void {
    if (group.closed) return
    let append: Append | undefined
    while (group.bytes < GROUP_BYTES && (append = this.#queue.shift()) !== undefined) {
      group.appends.push(append)
      for (const { end } of append.batch.frames) group.bytes += end
    }
  }

  async #nextEvent(flights: Flights, waitMs: number): Promise<void> {
    const timer = new AbortController()
    const appended = new Promise<void>((resolve) => {
      this.#wake = resolve
    })
    if (this.#queue.length === 0) await Promise.race([appended, flights.change(), delay(waitMs, undefined, { signal: timer.signal }).catch(() => {})])
    timer.abort()
    this.#wake = null
  }

  /** Sends what is not acknowledged, in order, one frame per partition and request. Without `flights` it waits for the answers. */
  async #send(shipments: readonly Shipment[], flights: Flights | null): Promise<void> {
    const own = flights ?? new Flights()
    const requests = new Map<number, { shipments: Shipment[]; partitions: Set<string>; bytes: number }>()
    const { compression } = this.#cluster.settings
    const flush = async (leader: number) => {
      const request = requests.get(leader)
      if (request === undefined) return
      requests.delete(leader)
      // I4: a retried first frame would land behind the second
      if (request.shipments.some(({ frame }) => !this.#session.isEstablished(frame.topic, frame.partition))) await own.landed()
      await own.room()
      const connection = await this.#session.connection(leader)
      own.add(this.#session.send(connection, request.shipments, compression))
    }
    for (const shipment of shipments) {
      if (shipment.acknowledged) continue
      const { topic, partition, end } = shipment.frame
      const leader = this.#cluster.leader(topic, partition)
      const key = `${topic}/${partition}`
      const open = requests.get(leader)
      if (open !== undefined && (open.partitions.has(key) || open.bytes + end > REQUEST_BYTES)) await flush(leader)
      const request = requests.get(leader) ?? { shipments: [], partitions: new Set<string>(), bytes: 0 }
      requests.set(leader, request)
      request.shipments.push(shipment)
      request.partitions.add(key)
      request.bytes += end
    }
    for (const leader of [...requests.keys()]) await flush(leader)
    if (flights === null) await own.landed()
  }

  /** In idempotent delivery only the progress partition knows of a takeover for sure: it is asked before frames go out. */
  async #claimBefore(group: Group): Promise<void> {
    // one whose fate is not known is sent again as it was, so that the broker can tell
    if (group.progress?.acknowledged !== false && group.claim?.acknowledged !== false) group.claim = this.#progressShipment(group.number - 1, new Map())
    await this.#send([group.progress?.acknowledged === false ? group.progress : group.claim!], null)
    this.#owned()
  }

  #owned(): void {
    this.#owns = true
    setImmediate(() => {
      this.#owns = false
    })
  }

  /**
   * Makes the group fit to be sent again. @returns true when it turns out to have landed
   * @throws log.fenced when another writer owns the node
   */
  async #recover(group: Group, error: unknown, attempt: number): Promise<boolean> {
    const shipments = [group.claim, group.progress, ...group.appends.flatMap((append) => append.shipments)].filter((shipment) => shipment !== null)
    if (!this.#exactlyOnce) {
      // out of order is the echo of an earlier frame's failure, unless it comes again
      const fault = faultOf(error)
      const lost = fault === 'UNKNOWN_PRODUCER_ID' || (fault === 'OUT_OF_ORDER_SEQUENCE_NUMBER' && attempt > 0)
      if (!lost && !isFenced(error)) return false
      await this.#reclaim()
      for (const shipment of shipments) if (!shipment.acknowledged) shipment.sequence = -1
      return false
    }
    const { transaction } = await this.#reclaim()
    if (transaction >= group.number) return true
    for (const shipment of shipments) {
      shipment.sequence = -1
      shipment.acknowledged = false
    }
    return false
  }

  /** A new epoch for the same writer; what was open is aborted. @returns what the node's owner record says after that */
  #reclaim(): Promise<Ownership> {
    return this.#cluster.retry(`recovering the writer of ${this.#node}`, async () => {
      this.#cluster.forget([this.#topic])
      try {
        await this.#session.start('keep')
      } catch (error) {
        if (!isFenced(error)) throw error
        // either a newer writer, which will sign the owner record, or the coordinator gave up our transaction
        const deadline = performance.now() + TAKEOVER_MS
        for (let polls = 0; performance.now() < deadline; polls++) {
          await this.#owner(error)
          await backOff(polls)
        }
        await this.#session.start('take')
      }
      return this.#owner(null)
    })
  }

  async #owner(cause: unknown): Promise<Ownership> {
    const { owner } = await readNodeState(this.#cluster, this.#topic, this.#node)
    if (owner?.writer !== this.#id) throw this.#fenced(cause)
    return owner
  }

  #fenced(cause: unknown): MillraceError {
    return new MillraceError('log.fenced', `another writer took over ${this.#node}`, {
      fix: 'stop this process, or the other one that runs the same node',
      ...(cause === null ? {} : { cause }),
    })
  }

  #progressPlace(): { readonly topic: string; readonly partition: number } {
    return { topic: this.#topic, partition: progressPartition(this.#node, this.#cluster.partitions(this.#topic)) }
  }

  #progressShipment(transaction: number, entries: ReadonlyMap<string, Json | null>): Shipment {
    const { topic, partition } = this.#progressPlace()
    return shipmentOf(progressFrame(topic, partition, this.#node, { writer: this.#id, transaction }, entries))
  }

  /** Waits for appends under way; those that fail are not tried again. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing = true
    await this.#running
    this.#session.close()
  }
}

function mergedProgress(appends: readonly Append[]): Map<string, Json | null> {
  const merged = new Map<string, Json | null>()
  for (const { batch } of appends) for (const [entry, value] of batch.progress) merged.set(entry, value)
  return merged
}
