import type { AuditStatus } from '../audit/continuous-audit.ts'
import type { ErrorCategory, ErrorCode, MillraceError } from '../errors.ts'
import type { NodeState } from './node-lifecycle.ts'

/** A running mesh as JSON: what `millrace status`, the live view and GET /status show. Times are epoch milliseconds. */
export interface MeshStatus {
  readonly mesh: string
  readonly pid: number
  readonly startedAt: number
  readonly at: number
  readonly ready: boolean
  readonly nodes: readonly NodeStatus[]
  /** What the continuous audit has found. */
  readonly audit: AuditStatus
}

export interface NodeStatus {
  readonly node: string
  readonly role: 'source' | 'sink'
  readonly plugin: string
  readonly state: NodeState
  /** Since when an operator has it paused, ISO 8601; one that had failed before stays `failed` until the next start. Null: it is not. */
  readonly pausedSince: string | null
  /** Rows and bytes since this process started; a sink has no bytes. */
  readonly rows: number
  readonly bytes: number
  /** Records that a sink could not hold and put among the dead letters. */
  readonly rejected: number
  readonly lagMs: number | null
  /** Source: bytes of its log that follow what is durable. Sink: records of its streams that it has not applied. Null: not known yet. */
  readonly behind: number | null
  /** Source only: bytes of its log that it keeps for us. */
  readonly retainedBytes: number | null
  /** When it last moved or had nothing to do; null: it has not yet since the start. */
  readonly progressedAt: number | null
  readonly error: StatusError | null
  readonly retryAt: number | null
  readonly snapshot: readonly TableProgress[]
  /** Source only: tables that cannot go on, while the others do. */
  readonly parked: readonly ParkedTableStatus[]
  readonly streams: readonly StreamStatus[]
}

export interface TableProgress {
  readonly table: string
  readonly rows: number
  readonly estimate: number | null
  readonly done: boolean
}

export interface ParkedTableStatus {
  readonly table: string
  /** ISO 8601 */
  readonly since: string
  /** Changes left out since. */
  readonly skipped: number
  readonly error: StatusError
}

export interface StreamStatus {
  readonly stream: string
  /** `failed` with a `schema` error: it is parked, as is a topic that is no stream though `from` takes it; its sink is `degraded` while other streams go on. */
  readonly state: NodeState
  readonly rows: number
  readonly rejected: number
  readonly behind: number | null
  readonly lagMs: number | null
  readonly error: StatusError | null
}

export interface StatusError {
  readonly code: ErrorCode
  readonly category: ErrorCategory
  readonly message: string
  readonly fix: string | null
}

export function statusError(error: MillraceError | null, redact: (text: string) => string): StatusError | null {
  if (error === null) return null
  return { code: error.code, category: error.category, message: redact(error.message), fix: error.fix === undefined ? null : redact(error.fix) }
}

/** A moment of `performance.now()` in epoch milliseconds, by the machine's clock as it is set now: what has passed since stays right when that is set anew. */
export function epochMs(moment: number | null): number | null {
  return moment === null ? null : Math.round(Date.now() - (performance.now() - moment))
}

/** A node is well when it moved, or was known to have nothing to do, within `staleMs`. One that just starts is not, a stopped or failed one is not, nor one with a parked table or a failed stream. */
export function isReady(node: NodeStatus, now: number, staleMs: number): boolean {
  if (node.state === 'failed' || node.state === 'done') return false
  if (node.state === 'paused') return true
  return (
    node.progressedAt !== null && now - node.progressedAt <= staleMs && node.parked.length === 0 && node.streams.every((stream) => stream.state !== 'failed')
  )
}

/** One thing is wrong with the table of this stream: the others of the sink go on. */
export function isParked({ state, error }: { readonly state: NodeState; readonly error: { readonly category: ErrorCategory } | null }): boolean {
  return state === 'failed' && error?.category === 'schema'
}

/** What does not go on until somebody repairs it, by node, table or stream: nodes, parked tables and streams. */
export function standing(status: MeshStatus): readonly { readonly what: string; readonly error: StatusError }[] {
  return status.nodes.flatMap((node) => {
    const parts = [
      ...node.parked.map(({ table, error }) => ({ what: `${node.node} (${table})`, error })),
      ...node.streams.flatMap(({ stream, state, error }) => (state === 'failed' && error !== null ? [{ what: `${node.node} (${stream})`, error }] : [])),
    ]
    const { error, state } = node
    const isOwn = error !== null && (state === 'failed' || error.category !== 'unavailable') && !parts.some((part) => part.error.message === error.message)
    return isOwn ? [{ what: node.node, error }, ...parts] : parts
  })
}
