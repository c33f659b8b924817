import type { Counter, Gauge, Registry } from 'prom-client'
import { isParked, type MeshStatus } from './mesh-status.ts'

const STATES = ['starting', 'snapshotting', 'running', 'degraded', 'paused', 'failed', 'done'] as const
const PREFIX = 'millrace_'
/** Name behind the prefix, help, labels; counted since the process started. */
const COUNTERS = {
  rows: ['rows_total', 'Rows durable in the log (source) or applied (sink) since the start', ['node']],
  bytes: ['bytes_total', 'Bytes of records that a source made durable since the start', ['node']],
  rejected: ['dead_letters_total', 'Records that a sink could not hold, since the start', ['node']],
} as const
const GAUGES = {
  lag: ['lag_seconds', 'Age of the last row when it was durable or applied', ['node']],
  behind: ['behind', 'Source: bytes of its log to go; sink: records to go', ['node']],
  retained: ['source_retained_bytes', 'Bytes of its log that the source keeps for this node', ['node']],
  state: ['node_state', '1 for the state that the node is in', ['node', 'state']],
  snapshotRows: ['snapshot_rows', 'Rows of a table that the snapshot has written', ['node', 'table']],
  snapshotEstimate: ['snapshot_estimated_rows', 'Rows that the source expects in a table', ['node', 'table']],
  parked: ['parked_tables', 'Tables of a source, or streams of a sink, that do not go on until somebody repairs them', ['node']],
  skipped: ['parked_changes', 'Changes of a parked table that were left out', ['node', 'table']],
  auditThrough: ['audit_through_seconds', 'Unix time up to which all that was captured is known to have landed, but for the differences', []],
  auditDifferences: ['audit_differences', 'Windows of a stream that are not the same in a sink as they were captured', ['node', 'stream']],
  auditUncounted: ['audit_uncounted_streams', 'Streams of sinks whose target does not say what landed', []],
  ready: ['ready', '1 when every node made progress or has nothing to do', []],
} as const
const TAKEN: ReadonlySet<string> = new Set(Object.values({ ...COUNTERS, ...GAUGES }).map(([name]) => PREFIX + name))

/** A plugin's own metric. */
interface PluginMetric {
  readonly kind: 'count' | 'gauge'
  readonly byNode: Map<string, number>
}

/** What the first scrape makes. */
interface Exposition {
  readonly registry: Registry
  readonly counters: Readonly<Record<keyof typeof COUNTERS, Counter>>
  readonly gauges: Readonly<Record<keyof typeof GAUGES, Gauge>>
  readonly set: (name: string, metric: PluginMetric) => void
}

/**
 * Prometheus metrics of one mesh. Those about nodes are read from the status when they are scraped, so they cost nothing in between; prom-client, which takes
 * megabytes, is loaded by the first scrape, and what it counts of Node itself is counted from then on.
 */
export class Metrics {
  readonly #mesh: string
  readonly #status: () => MeshStatus
  readonly #redact: (text: string) => string
  readonly #own = new Map<string, PluginMetric>()
  #exposition: Promise<Exposition> | null = null

  /** @param redact masks secrets in labels and in names that plugins give */
  constructor(mesh: string, status: () => MeshStatus, redact: (text: string) => string) {
    this.#mesh = mesh
    this.#status = status
    this.#redact = redact
  }

  /**
   * A plugin's own metric: `name` gets the prefix `millrace_` and the label node. A name is of the kind that it was first recorded as.
   * @throws RangeError for a name of Millrace's own, a value that is no number, or a count that is none from 0 on
   */
  record(node: string, name: string, value: number, kind: 'count' | 'gauge'): void {
    const full = PREFIX + this.#redact(name).replace(/[^a-zA-Z0-9_]/g, '_')
    if (TAKEN.has(full)) throw new RangeError(`the metric ${full} is Millrace's own`)
    // plugins in JavaScript come by no compiler, and one wrong value would fail every scrape
    if (typeof value !== 'number') throw new RangeError(`the metric ${full} is no number but a ${typeof value}`)
    if (kind === 'count' && !(value >= 0 && value < Number.POSITIVE_INFINITY)) throw new RangeError(`the metric ${full} cannot count ${value}`)
    let metric = this.#own.get(full)
    if (metric === undefined) this.#own.set(full, (metric = { kind, byNode: new Map() }))
    if (kind === 'count') metric.byNode.set(node, (metric.byNode.get(node) ?? 0) + value)
    else if (metric.kind === 'gauge') metric.byNode.set(node, value)
  }

  /** The text that Prometheus scrapes, and its media type. */
  async scrape(): Promise<{ readonly contentType: string; readonly text: string }> {
    this.#exposition ??= expose(this.#mesh)
    const { registry, counters: c, gauges: g, set } = await this.#exposition
    const status = this.#status()
    for (const [name, metric] of this.#own) set(name, metric)
    for (const each of [...Object.values(c), ...Object.values(g)]) each.reset()
    g.ready.set(status.ready ? 1 : 0)
    const { throughMs, differences, uncounted } = status.audit
    if (throughMs !== null) g.auditThrough.set(throughMs / 1000)
    g.auditUncounted.set(uncounted.length)
    for (const { sink, stream } of differences) g.auditDifferences.inc({ node: sink, stream })
    for (const node of status.nodes) {
      const label = { node: node.node }
      c.rows.inc(label, node.rows)
      if (node.role === 'source') {
        c.bytes.inc(label, node.bytes)
        for (const { table, skipped } of node.parked) g.skipped.set({ ...label, table }, skipped)
      }
      if (node.role === 'sink') c.rejected.inc(label, node.rejected)
      g.parked.set(label, node.parked.length + node.streams.filter(isParked).length)
      if (node.lagMs !== null) g.lag.set(label, node.lagMs / 1000)
      if (node.behind !== null) g.behind.set(label, node.behind)
      if (node.retainedBytes !== null) g.retained.set(label, node.retainedBytes)
      for (const state of STATES) g.state.set({ ...label, state }, node.state === state ? 1 : 0)
      for (const { table, rows, estimate } of node.snapshot) {
        g.snapshotRows.set({ ...label, table }, rows)
        if (estimate !== null) g.snapshotEstimate.set({ ...label, table }, estimate)
      }
    }
    const text = await registry.metrics()
    // I9: labels only: a mask in a number would make it none
    const masked = text.replaceAll(/"((?:[^"\\]|\\.)*)"/g, (_, label: string) => `"${this.#redact(label)}"`)
    return { contentType: registry.contentType, text: masked }
  }
}

interface Options {
  readonly name: string
  readonly help: string
  readonly labelNames: string[]
  readonly registers: Registry[]
}

async function expose(mesh: string): Promise<Exposition> {
  const { collectDefaultMetrics, Counter, Gauge, Registry } = await import('prom-client')
  const registry = new Registry()
  registry.setDefaultLabels({ mesh })
  collectDefaultMetrics({ register: registry })
  const made = <M>(figures: typeof COUNTERS | typeof GAUGES, make: (options: Options) => M) =>
    Object.fromEntries(
      Object.entries(figures).map(([key, [name, help, labelNames]]) => [
        key,
        make({ name: PREFIX + name, help, labelNames: [...labelNames], registers: [registry] }),
      ]),
    )
  const own = new Map<string, Counter | Gauge>()
  return {
    registry,
    counters: made(COUNTERS, (options) => new Counter(options)) as Exposition['counters'],
    gauges: made(GAUGES, (options) => new Gauge(options)) as Exposition['gauges'],
    set(name, { kind, byNode }) {
      let metric = own.get(name)
      if (metric === undefined) {
        const options = { name, help: `${name} of a plugin`, labelNames: ['node'], registers: [registry] }
        own.set(name, (metric = kind === 'count' ? new Counter(options) : new Gauge(options)))
      }
      metric.reset()
      for (const [node, value] of byNode) metric.inc({ node }, value)
    },
  }
}
