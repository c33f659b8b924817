/**
 * The life of a node (or of one stream of a sink) as a pure state machine.
 *
 *     starting ─► snapshotting ◄─► running ─► done
 *        ▲   └──────┬─────┴────────┘  │
 *        │       degraded ◄───────────┘        any ─► failed, paused
 *        └── retry ─┘
 */
export type NodeState = 'starting' | 'snapshotting' | 'running' | 'degraded' | 'paused' | 'failed' | 'done'

/**
 * snapshot: rows that exist are being read. stream: changes are followed. lost: something is unavailable and will be tried again. retry: it is tried
 * again from the start. fail: it gives up. pause, resume: an operator's wish. stop: a graceful end.
 */
export type NodeEvent = 'snapshot' | 'stream' | 'lost' | 'retry' | 'fail' | 'pause' | 'resume' | 'stop'

/** No `Partial`: every state answers every event; null says that it cannot happen there. */
export const TRANSITIONS: Readonly<Record<NodeState, Readonly<Record<NodeEvent, NodeState | null>>>> = {
  starting: { snapshot: 'snapshotting', stream: 'running', lost: 'degraded', retry: null, fail: 'failed', pause: 'paused', resume: null, stop: 'done' },
  snapshotting: { snapshot: 'snapshotting', stream: 'running', lost: 'degraded', retry: null, fail: 'failed', pause: 'paused', resume: null, stop: 'done' },
  running: { snapshot: 'snapshotting', stream: 'running', lost: 'degraded', retry: null, fail: 'failed', pause: 'paused', resume: null, stop: 'done' },
  // a driver may lose and find its target again without a restart: snapshot and stream lead back
  degraded: { snapshot: 'snapshotting', stream: 'running', lost: 'degraded', retry: 'starting', fail: 'failed', pause: 'paused', resume: null, stop: 'done' },
  paused: { snapshot: null, stream: null, lost: null, retry: null, fail: null, pause: 'paused', resume: 'starting', stop: 'done' },
  // a stop does not make a failure good
  failed: { snapshot: null, stream: null, lost: null, retry: null, fail: 'failed', pause: null, resume: 'starting', stop: 'failed' },
  done: { snapshot: null, stream: null, lost: null, retry: null, fail: null, pause: null, resume: null, stop: 'done' },
}

/** The next state, or null when the event cannot happen in this one. */
export function nextState(state: NodeState, event: NodeEvent): NodeState | null {
  return TRANSITIONS[state][event]
}

/** From worst to best: a node with several streams shows the worst of them. */
const SEVERITY: readonly NodeState[] = ['failed', 'degraded', 'starting', 'snapshotting', 'paused', 'running', 'done']

/** The state of a node made of parts; `running` when it has none. */
export function worstState(states: Iterable<NodeState>): NodeState {
  const present = new Set(states)
  return SEVERITY.find((state) => present.has(state)) ?? 'running'
}
