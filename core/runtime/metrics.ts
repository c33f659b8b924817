import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { MeshStatus } from './mesh-status.ts'

const STATES = ['starting', 'snapshotting', 'running', 'degraded', 'paused', 'failed', 'done'] as const

/** Prometheus metrics of one mesh. Those about nodes are read from the status when they are scraped, so they cost nothing in between. */
export class Metrics {
  readonly #registry = new Registry()
  readonly #status: () => MeshStatus
  readonly #redact: (text: string) => string
  readonly #own = new Map<string, Counter | Gauge>()
  readonly #gauges: {
    readonly [name in
      | 'rows'
      | 'bytes'
      | 'rejected'
      | 'lag'
      | 'behind'
      | 'retained'
      | 'state'
      | 'snapshotRows'
      | 'snapshotEstimate'
      | 'parked'
      | 'skipped'
      | 'ready'
      | 'auditThrough'
      | 'auditDifferences'
      | 'auditUncounted']: Gauge
  }

  /** @param redact masks secrets in labels and in names that plugins give */
  constructor(mesh: string, status: () => MeshStatus, redact: (text: string) => string) {
    this.#status = status
    this.#redact = redact
    this.#registry.setDefaultLabels({ mesh })
    collectDefaultMetrics({ register: this.#registry })
    const gauge = (name: string, help: string, labelNames: string[]) => new Gauge({ name: `millrace_${name}`, help, labelNames, registers: [this.#registry] })
    this.#gauges = {
      rows: gauge('rows_total', 'Rows durable in the log (source) or applied (sink) since the start', ['node']),
      bytes: gauge('bytes_total', 'Bytes of records that a source made durable since the start', ['node']),
      rejected: gauge('dead_letters_total', 'Records that a sink could not hold', ['node']),
      lag: gauge('lag_seconds', 'Age of the last row when it was durable or applied', ['node']),
      behind: gauge('behind', 'Source: bytes of its log to go; sink: records to go', ['node']),
      retained: gauge('source_retained_bytes', 'Bytes of its log that the source keeps for this node', ['node']),
      state: gauge('node_state', '1 for the state that the node is in', ['node', 'state']),
      snapshotRows: gauge('snapshot_rows', 'Rows of a table that the snapshot has written', ['node', 'table']),
      snapshotEstimate: gauge('snapshot_estimated_rows', 'Rows that the source expects in a table', ['node', 'table']),
      parked: gauge('parked_tables', 'Tables of a source that cannot go on until they are read again', ['node']),
      skipped: gauge('parked_changes', 'Changes of a parked table that were left out', ['node', 'table']),
      auditThrough: gauge('audit_through_seconds', 'Unix time up to which all that was captured is known to have landed, but for the differences', []),
      auditDifferences: gauge('audit_differences', 'Windows of a stream that are not the same in a sink as they were captured', ['node', 'stream']),
      auditUncounted: gauge('audit_uncounted_streams', 'Streams of sinks whose target does not say what landed', []),
      ready: gauge('ready', '1 when every node made progress or has nothing to do', []),
    }
  }

  get contentType(): string {
    return this.#registry.contentType
  }

  /** A plugin's own metric: `name` gets the prefix `millrace_` and the label node. */
  record(node: string, name: string, value: number, kind: 'count' | 'gauge'): void {
    const full = `millrace_${this.#redact(name).replace(/[^a-zA-Z0-9_]/g, '_')}`
    let metric = this.#own.get(full)
    if (metric === undefined) {
      const options = { name: full, help: `${full} of a plugin`, labelNames: ['node'], registers: [this.#registry] }
      metric = kind === 'count' ? new Counter(options) : new Gauge(options)
      this.#own.set(full, metric)
    }
    if (kind === 'count') metric.inc({ node }, value)
    else if (metric instanceof Gauge) metric.set({ node }, value)
  }

  /** The text that Prometheus scrapes. */
  async text(): Promise<string> {
    const status = this.#status()
    const g = this.#gauges
    for (const each of Object.values(g)) each.reset()
    g.ready.set(status.ready ? 1 : 0)
    const { throughMs, differences, uncounted } = status.audit
    if (throughMs !== null) g.auditThrough.set(throughMs / 1000)
    g.auditUncounted.set(uncounted.length)
    for (const { sink, stream } of differences) g.auditDifferences.inc({ node: sink, stream })
    for (const node of status.nodes) {
      const label = { node: node.node }
      g.rows.set(label, node.rows)
      if (node.role === 'source') {
        g.bytes.set(label, node.bytes)
        g.parked.set(label, node.parked.length)
        for (const { table, skipped } of node.parked) g.skipped.set({ ...label, table }, skipped)
      }
      if (node.role === 'sink') g.rejected.set(label, node.rejected)
      if (node.lagMs !== null) g.lag.set(label, node.lagMs / 1000)
      if (node.behind !== null) g.behind.set(label, node.behind)
      if (node.retainedBytes !== null) g.retained.set(label, node.retainedBytes)
      for (const state of STATES) g.state.set({ ...label, state }, node.state === state ? 1 : 0)
      for (const { table, rows, estimate } of node.snapshot) {
        g.snapshotRows.set({ ...label, table }, rows)
        if (estimate !== null) g.snapshotEstimate.set({ ...label, table }, estimate)
      }
    }
    const text = await this.#registry.metrics()
    // I9: labels only: a mask in a number would make it none
    return text.replaceAll(/"((?:[^"\\]|\\.)*)"/g, (_, label: string) => `"${this.#redact(label)}"`)
  }
}
