import { stripVTControlCharacters, styleText } from 'node:util'
import { describeDifference } from '../../core/audit/continuous-audit.ts'
import { isParked, type MeshStatus, type NodeStatus, standing, type TableProgress } from '../../core/runtime/mesh-status.ts'
import type { NodeState } from '../../core/runtime/node-lifecycle.ts'
import { formatBytes, formatCount, formatDuration } from './figures.ts'

export interface ViewOptions {
  readonly width: number
  readonly color: boolean
}

/** Rows per second, of nodes by name and of tables by `node table`. */
export type Rates = ReadonlyMap<string, number>

const WINDOW_MS = 5000

/** Rates over the last five seconds of a series of statuses. */
export class RateWindow {
  readonly #samples: { readonly at: number; readonly rows: ReadonlyMap<string, number> }[] = []

  /** Takes the next status and gives the rates up to it; none with the first. */
  add(status: MeshStatus): Rates {
    const rows = new Map<string, number>()
    for (const { node, rows: count, snapshot } of status.nodes) {
      rows.set(node, count)
      for (const table of snapshot) rows.set(`${node} ${table.table}`, table.rows)
    }
    this.#samples.push({ at: status.at, rows })
    while (this.#samples.length > 2 && this.#samples[1]!.at <= status.at - WINDOW_MS) this.#samples.shift()
    const first = this.#samples[0]!
    const seconds = (status.at - first.at) / 1000
    if (seconds <= 0) return new Map()
    return new Map([...rows].map(([key, count]) => [key, Math.max(0, (count - (first.rows.get(key) ?? 0)) / seconds)]))
  }
}

const STATE_COLOR: Readonly<Record<NodeState, 'green' | 'yellow' | 'red' | 'cyan' | 'gray'>> = {
  starting: 'gray',
  snapshotting: 'cyan',
  running: 'green',
  degraded: 'yellow',
  paused: 'gray',
  failed: 'red',
  done: 'gray',
}

/** A status as lines that fit the width: pure, so that it is the same in a terminal, a test and `millrace status`. */
export function renderStatus(status: MeshStatus, rates: Rates, options: ViewOptions): string[] {
  const paint = (style: Parameters<typeof styleText>[0], text: string) => (options.color ? styleText(style, text, { validateStream: false }) : text)
  const isOver = status.nodes.length > 0 && status.nodes.every(({ state }) => state === 'done')
  const ready = isOver ? paint('dim', 'stopped') : status.ready ? paint('green', 'ready') : paint('yellow', 'not ready')
  const rows = status.nodes.map((node) => cells(node, rates))
  const header = ['NODE', 'STATE', 'ROWS', 'ROWS/S', 'LAG', 'BEHIND']
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)))
  const line = (row: readonly string[]) => row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')
  const lines = [`${paint('bold', status.mesh)} · ${ready} · up ${formatDuration(status.at - status.startedAt)}`, paint('dim', `  ${line(header)}`)]
  status.nodes.forEach((node, i) => {
    const text = line(rows[i]!)
    const from = widths[0]! + 2
    lines.push(`  ${text.slice(0, from)}${paint(STATE_COLOR[node.state], text.slice(from, from + widths[1]!))}${text.slice(from + widths[1]!)}`)
    lines.push(...details(node, rates, status.at, paint))
  })
  lines.push(...auditLines(status, paint))
  return lines.map((one) => clip(one, options.width))
}

function auditLines({ audit, at }: MeshStatus, paint: (style: 'dim' | 'red', text: string) => string): string[] {
  const { throughMs, differences, uncounted } = audit
  if (throughMs === null && differences.length === 0 && uncounted.length === 0) return []
  const age = throughMs === null ? '' : ` (${formatDuration(at - throughMs)} ago)`
  const through = throughMs === null ? 'not audited yet' : `audited through ${new Date(throughMs).toISOString().slice(11, 19)} UTC${age}`
  const lines = [`  ${through}, ${differences.length} ${differences.length === 1 ? 'difference' : 'differences'}`]
  for (const difference of differences.slice(0, 8)) lines.push(paint('red', `    ${describeDifference(difference)}`))
  if (differences.length > 8) lines.push(`    and ${differences.length - 8} more: millrace audit FILE --windows`)
  if (uncounted.length > 0) lines.push(paint('dim', `    not counted, since their targets keep no windows: ${uncounted.join(', ')}`))
  return lines
}

function cells(node: NodeStatus, rates: Rates): string[] {
  const rate = rates.get(node.node)
  const behind = node.behind === null ? '-' : node.role === 'source' ? formatBytes(node.behind) : `${formatCount(node.behind)} rec`
  return [
    node.node,
    node.state,
    formatCount(node.rows),
    rate === undefined ? '-' : formatCount(rate),
    node.lagMs === null ? '-' : formatDuration(node.lagMs),
    behind,
  ]
}

function details(node: NodeStatus, rates: Rates, now: number, paint: (style: 'dim' | 'red', text: string) => string): string[] {
  const lines: string[] = []
  if (node.pausedSince !== null)
    lines.push(paint('dim', `    paused since ${node.pausedSince.slice(0, 19).replace('T', ' ')} UTC: millrace resume FILE ${node.node}`))
  const open = node.snapshot.filter(({ done }) => !done)
  if (node.snapshot.length > 0 && open.length > 0) {
    const shown = open.slice(0, 8)
    const width = Math.max(...shown.map(({ table }) => table.length))
    for (const table of shown) lines.push(`    ${progressLine(table, width, rates.get(`${node.node} ${table.table}`) ?? 0)}`)
    const done = node.snapshot.length - open.length
    const more = open.length > 8 ? `, ${open.length - 8} more to go` : ''
    if (done > 0 || more !== '') lines.push(paint('dim', `    ${done} of ${node.snapshot.length} tables read${more}`))
  }
  if (node.rejected > 0)
    lines.push(
      `    ${formatCount(node.rejected)} dead ${node.rejected === 1 ? 'letter' : 'letters'}: tap ${node.node}.dead-letter --mesh FILE --from-beginning`,
    )
  for (const { table, skipped, error } of node.parked) {
    lines.push(
      paint(
        'red',
        `    ${table} is parked, ${formatCount(skipped)} ${skipped === 1 ? 'change' : 'changes'} left out: ${error.code}: ${oneLine(error.message)}`,
      ),
    )
    if (error.fix !== null) lines.push(`    fix: ${oneLine(error.fix)}`)
  }
  const stopped = node.streams.filter(({ state }) => state === 'failed')
  const told = [...node.parked, ...stopped].map(({ error }) => error?.message)
  if (node.error !== null && !told.includes(node.error.message)) {
    const again = node.retryAt === null ? '' : ` (again in ${formatDuration(node.retryAt - now)})`
    lines.push(paint('red', `    ${node.error.code}: ${oneLine(node.error.message)}${again}`))
    if (node.error.fix !== null) lines.push(`    fix: ${oneLine(node.error.fix)}`)
  }
  for (const one of stopped) {
    const { stream, error } = one
    const what = isParked(one) ? 'is parked' : 'stopped'
    lines.push(paint('red', `    ${stream} ${what}: ${error === null ? 'unknown' : `${error.code}: ${oneLine(error.message)}`}`))
    if (error != null && error.fix !== null) lines.push(`    fix: ${oneLine(error.fix)}`)
  }
  return lines
}

const BAR_CELLS = 16

function progressLine(table: TableProgress, width: number, rate: number): string {
  const name = table.table.padEnd(width)
  if (table.estimate === null || table.estimate <= 0) return `${name}  ${formatCount(table.rows)} rows`
  // estimates come from statistics and may be low: a table that is not done is never shown as full
  const part = Math.min(0.99, table.rows / table.estimate)
  const full = Math.floor(part * BAR_CELLS)
  const left = Math.max(0, table.estimate - table.rows)
  const eta = rate > 0 && left > 0 ? `  ETA ${formatDuration((left / rate) * 1000)}` : ''
  return `${name}  ${'█'.repeat(full)}${'░'.repeat(BAR_CELLS - full)} ${Math.floor(part * 100)}%  ${formatCount(table.rows)} of ~${formatCount(table.estimate)}${eta}`
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim()
}

/** Cuts a line at the width; a line that is cut loses its colours, so that none is left open. */
export function clip(line: string, width: number): string {
  const plain = stripVTControlCharacters(line)
  const characters = [...plain]
  return characters.length <= width ? line : `${characters.slice(0, Math.max(0, width - 1)).join('')}…`
}

/** What does not go on until somebody repairs it, with its repair: what is printed when a mesh has ended. */
export function renderStanding(status: MeshStatus): string {
  return standing(status)
    .map(({ what, error }) => `millrace: ${what} ${error.code}: ${error.message}${error.fix === null ? '' : `\n  fix: ${error.fix}`}\n`)
    .join('')
}

/** One line for logs: every node with its state and figures. */
export function statusLine(status: MeshStatus, rates: Rates): string {
  return status.nodes
    .map((node) => {
      const reading = node.snapshot.filter(({ done }) => !done)
      const expected = reading.reduce((sum, { rows, estimate }) => sum + Math.max(rows, estimate ?? 0), 0)
      const read = reading.reduce((sum, { rows }) => sum + rows, 0)
      const progress = reading.length > 0 && expected > 0 ? `, snapshot ${Math.floor(Math.min(0.99, read / expected) * 100)}%` : ''
      const lag = node.lagMs === null ? '' : `, lag ${formatDuration(node.lagMs)}`
      return `${node.node} ${node.state}: ${formatCount(node.rows)} rows, ${formatCount(rates.get(node.node) ?? 0)}/s${lag}${progress}`
    })
    .join(' · ')
}
