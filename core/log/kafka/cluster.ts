import { setTimeout as delay } from 'node:timers/promises'
import { MillraceError } from '../../errors.ts'
import { BrokerConnection } from './broker-connection.ts'
import { askMetadata, findCoordinator } from './cluster-requests.ts'
import { faultId } from './error-names.ts'
import { asLogError, checkCode, isFinal, KafkaFault } from './kafka-fault.ts'
import type { KafkaSettings } from './kafka-options.ts'

const BACKOFF_MIN_MS = 5
const BACKOFF_MAX_MS = 1_000

/** Waits a little longer each time, with jitter; ends early when the signal aborts. */
export async function backOff(attempt: number, signal?: AbortSignal): Promise<void> {
  const ms = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** attempt) * (0.5 + Math.random() / 2)
  await delay(ms, undefined, signal === undefined ? {} : { signal }).catch(() => {})
}

interface KnownTopic {
  readonly internal: boolean
  /** Leader's node id by partition; -1 without a leader. */
  readonly leaders: readonly number[]
}

/** What we know of a cluster: its brokers, the leaders of partitions, and one connection per broker and purpose. */
export class Cluster {
  readonly settings: KafkaSettings
  readonly #brokers = new Map<number, { readonly host: string; readonly port: number }>()
  readonly #topics = new Map<string, KnownTopic>()
  /** Topics to ask for again before they are used anew; whoever is half way goes on with what was known. */
  readonly #stale = new Set<string>()
  /** When a connection to `host:port` last failed. */
  readonly #failedAt = new Map<string, number>()
  readonly #connections = new Map<string, Promise<BrokerConnection>>()
  /** As its brokers say; null before they were asked, or when they do not say it. */
  id: string | null = null
  #closed = false

  constructor(settings: KafkaSettings) {
    this.settings = settings
  }

  get name(): string {
    return this.settings.brokers.map(({ host, port }) => `${host}:${port}`).join(',')
  }

  /** Runs `operation` again after a pause while it fails for a passing reason. @throws log.unreachable after `unreachableMs`, log.refused at once, and others of asLogError */
  async retry<T>(doing: string, operation: (attempt: number) => Promise<T>, signal?: AbortSignal): Promise<T> {
    const deadline = performance.now() + this.settings.unreachableMs
    for (let attempt = 0; ; attempt++) {
      try {
        return await operation(attempt)
      } catch (error) {
        if (this.#closed || isFinal(error) || performance.now() > deadline || signal?.aborted === true) throw asLogError(error, doing, this.name)
        await backOff(attempt, signal)
      }
    }
  }

  /** A connection for one use: requests of one purpose to one broker keep their order. `reuse`: see BrokerConnection.open. */
  async connection(purpose: string, brokerId: number, reuse = false): Promise<BrokerConnection> {
    const address = this.#brokers.get(brokerId)
    if (address === undefined) throw new KafkaFault('LEADER_NOT_AVAILABLE', `broker ${brokerId} is not known`)
    return this.#connect(`${purpose}/${brokerId}`, address, reuse)
  }

  async #connect(key: string, address: { readonly host: string; readonly port: number }, reuse = false): Promise<BrokerConnection> {
    if (this.#closed) throw new MillraceError('log.unreachable', 'the log is closed')
    const known = this.#connections.get(key)
    if (known !== undefined) {
      const connection = await known
      if (!connection.closed) return connection
      if (this.#connections.get(key) === known) this.#connections.delete(key)
      return this.#connect(key, address, reuse)
    }
    const opening = BrokerConnection.open(address, this.settings, reuse)
    this.#connections.set(key, opening)
    const name = `${address.host}:${address.port}`
    try {
      const connection = await opening
      connection.onFailure = () => this.#failedAt.set(name, performance.now())
      if (this.#closed) connection.close()
      return connection
    } catch (error) {
      this.#failedAt.set(name, performance.now())
      if (this.#connections.get(key) === opening) this.#connections.delete(key)
      throw error
    }
  }

  /** Closes the connections of one purpose, so that requests in flight fail at once. */
  disconnect(purpose: string): void {
    for (const [key, opening] of this.#connections) {
      if (!key.startsWith(`${purpose}/`)) continue
      this.#connections.delete(key)
      opening.then(
        (connection) => connection.close(),
        () => {},
      )
    }
  }

  /** Any broker that answers: a known one, else one of those in the settings; first those that have not failed, so that one that hangs is asked once. */
  async anyBroker(): Promise<BrokerConnection> {
    let failure: unknown = new KafkaFault('BROKER_NOT_AVAILABLE', 'no broker is known')
    const known = [...this.#brokers].map(([id, address]) => [`control/${id}`, address] as const)
    const named = this.settings.brokers.map((address) => [`control/${address.host}:${address.port}`, address] as const)
    const failedAt = ({ host, port }: { readonly host: string; readonly port: number }) => this.#failedAt.get(`${host}:${port}`) ?? 0
    for (const [key, address] of [...known, ...named].sort(([, a], [, b]) => failedAt(a) - failedAt(b))) {
      try {
        return await this.#connect(key, address)
      } catch (error) {
        failure = error
        if (isFinal(error)) throw error
      }
    }
    throw failure
  }

  /** Asks for the leaders of these topics (null: all topics of the cluster). What does not exist, or not yet where we ask, stays to be asked for. */
  async refresh(topics: readonly string[] | null): Promise<void> {
    const answer = await askMetadata(await this.anyBroker(), topics)
    this.id = answer.cluster
    this.#brokers.clear()
    for (const { nodeId, host, port } of answer.brokers) this.#brokers.set(nodeId, { host, port })
    if (topics === null) this.forget(this.#topics.keys())
    for (const { topic, errorCode, internal, partitions } of answer.topics) {
      const failed = faultId(errorCode)
      if (failed === 'TOPIC_AUTHORIZATION_FAILED' || failed === 'INVALID_TOPIC_EXCEPTION') throw new KafkaFault(failed, `topic ${topic}`)
      if (failed !== null) {
        this.#stale.add(topic)
        continue
      }
      const leaders: number[] = new Array<number>(partitions.length).fill(-1)
      for (const { partition, leader } of partitions) leaders[partition] = leader
      this.#topics.set(topic, { internal, leaders })
      this.#stale.delete(topic)
    }
  }

  /** Makes sure that the leaders of all these topics are known. @throws KafkaFault UNKNOWN_TOPIC_OR_PARTITION */
  async know(topics: Iterable<string>): Promise<void> {
    const missing = [...new Set(topics)].filter((topic) => !this.has(topic))
    if (missing.length === 0) return
    await this.refresh(missing)
    const unknown = missing.filter((topic) => !this.has(topic))
    if (unknown.length > 0) throw new KafkaFault('UNKNOWN_TOPIC_OR_PARTITION', unknown.join(', '))
  }

  /** `know` will ask for these topics again. */
  forget(topics: Iterable<string>): void {
    for (const topic of topics) this.#stale.add(topic)
  }

  partitions(topic: string): number {
    return this.#topics.get(topic)?.leaders.length ?? 0
  }

  /** Topics of the cluster but Kafka's own; as of the last refresh. */
  topics(): readonly { readonly topic: string; readonly partitions: number }[] {
    return [...this.#topics]
      .filter(([topic, { internal }]) => !internal && !this.#stale.has(topic))
      .map(([topic, { leaders }]) => ({ topic, partitions: leaders.length }))
  }

  has(topic: string): boolean {
    return this.#topics.has(topic) && !this.#stale.has(topic)
  }

  /** Node id of the leader. @throws KafkaFault when it has none now, or there is no such partition */
  leader(topic: string, partition: number): number {
    const id = this.#topics.get(topic)?.leaders[partition]
    if (id === undefined) throw new KafkaFault('UNKNOWN_TOPIC_OR_PARTITION', `${topic} partition ${partition}`)
    if (id < 0) throw new KafkaFault('LEADER_NOT_AVAILABLE', `${topic} partition ${partition}`)
    return id
  }

  /** Node id of the transaction coordinator of a transactional id. */
  async coordinator(transactionalId: string): Promise<number> {
    const { errorCode, message, nodeId, host, port } = await findCoordinator(await this.anyBroker(), transactionalId)
    checkCode(errorCode, `transactional id ${transactionalId}${message ? `: ${message}` : ''}`)
    this.#brokers.set(nodeId, { host, port })
    return nodeId
  }

  close(): void {
    this.#closed = true
    for (const opening of this.#connections.values()) {
      opening.then(
        (connection) => connection.close(),
        () => {},
      )
    }
    this.#connections.clear()
  }
}
