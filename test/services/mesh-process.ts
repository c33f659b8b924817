/** A mesh as users run it: `millrace run FILE`, or an agent for some of its sources, as a process of its own, killed, stopped and started again on the same state. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pino from 'pino'
import { frameOf, recordHeader, records } from '../../core/event/record-batch.ts'
import { openEmbeddedLog } from '../../core/log/embedded/embedded-log.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { Secrets } from '../../core/mesh/secrets.ts'
import type { SourceTableAudit } from '../../core/runtime/audit-mesh.ts'
import { auditMesh } from '../../core/runtime/audit-mesh.ts'
import { readRunning } from '../../core/runtime/data-folder.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'
import { openLog, openRegistry } from '../../core/runtime/open-log.ts'
import { PluginCatalog } from '../../core/runtime/plugin-catalog.ts'
import { RecordDecoders } from '../../core/schema/record-decoder.ts'

const MILLRACE = path.join(import.meta.dirname, '..', '..', 'control', 'cli', 'millrace.js')

export class MeshProcess {
  readonly file: string
  readonly dataDir: string
  readonly #env: NodeJS.ProcessEnv
  readonly #command: readonly string[]
  #child: ChildProcess | null = null
  /** The process is gone, and all that it wrote is here. */
  #closed: Promise<void> = Promise.resolve()
  #output = ''

  /** @param yaml the mesh file; its `dataDir` must be `state` @param agent the kind of the sources that it runs as an agent, and nothing else; null: all nodes */
  constructor(dir: string, yaml: string, env: Readonly<Record<string, string>> = {}, agent: string | null = null) {
    mkdirSync(dir, { recursive: true })
    this.file = path.join(dir, 'mesh.yaml')
    this.dataDir = path.join(dir, 'state')
    this.#env = { ...process.env, ...env }
    this.#command = agent === null ? ['run', this.file] : ['agent', agent, '--config', this.file]
    writeFileSync(this.file, yaml)
  }

  /** What the process wrote to stderr, all its lives together. */
  get output(): string {
    return this.#output
  }

  get pid(): number {
    return this.#child?.pid ?? 0
  }

  get running(): boolean {
    return this.#child !== null && this.#child.exitCode === null && this.#child.signalCode === null
  }

  start(args: readonly string[] = []): void {
    const child = spawn(process.execPath, [MILLRACE, ...this.#command, ...args], { env: this.#env, stdio: ['ignore', 'ignore', 'pipe'] })
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text
    })
    this.#child = child
    this.#closed = new Promise((resolve) => child.once('close', () => resolve()))
  }

  kill(): Promise<number | null> {
    return this.#end('SIGKILL')
  }

  /** A graceful stop; the exit code. */
  stop(): Promise<number | null> {
    return this.#end('SIGINT')
  }

  /** Waits for the process to end by itself. */
  async ended(): Promise<number | null> {
    await this.#closed
    return this.#child?.exitCode ?? null
  }

  async #end(signal: NodeJS.Signals): Promise<number | null> {
    if (this.running) this.#child!.kill(signal)
    return this.ended()
  }

  /** What `millrace status` shows; null while it does not answer. */
  async status(): Promise<MeshStatus | null> {
    const running = readRunning(this.dataDir)
    if (running === null || running.pid !== this.pid) return null
    try {
      return (await (await fetch(`http://${running.host}:${running.port}/status`)).json()) as MeshStatus
    } catch {
      return null
    }
  }

  /** Runs another command beside it: `millrace NAME FILE ARGS…`. `text` is all that it printed, `out` what was meant for programs. */
  async command(name: string, ...args: readonly string[]): Promise<{ readonly exitCode: number | null; readonly text: string; readonly out: string }> {
    const child = spawn(process.execPath, [MILLRACE, name, this.file, ...args], { env: this.#env, stdio: ['ignore', 'pipe', 'pipe'] })
    let text = ''
    let out = ''
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (part: string) => (text += part))
    child.stdout.on('data', (part: string) => (out += part))
    await new Promise((resolve) => child.once('close', resolve))
    return { exitCode: child.exitCode, text, out }
  }

  /** What `millrace audit` gives, as a user runs it beside the mesh. @throws when it does not exit with 0 */
  async auditCommand(): Promise<readonly SourceTableAudit[]> {
    const { exitCode, text, out } = await this.command('audit', '--json', '--wait', '180')
    if (exitCode !== 0) throw new Error(`audit exited with ${exitCode}: ${text}\n${JSON.stringify(await this.status())}\n${this.#output.slice(-4000)}`)
    return (JSON.parse(out) as { result: { audit: readonly SourceTableAudit[] } }).result.audit
  }

  /** Waits until the status fulfils a condition. @throws when the process ends or three minutes pass */
  async until(what: string, condition: (status: MeshStatus) => boolean, timeoutMs = 180_000): Promise<MeshStatus> {
    for (const deadline = performance.now() + timeoutMs; ; await delay(5)) {
      const status = await this.status()
      if (status !== null && condition(status)) return status
      if (!this.running) throw new Error(`the mesh ended (${this.#child?.exitCode ?? this.#child?.signalCode}) before ${what}:\n${this.#output.slice(-4000)}`)
      if (performance.now() > deadline) throw new Error(`not ${what} in time: ${JSON.stringify(status)}\n${this.#output.slice(-4000)}`)
    }
  }

  /** Audits from this process, beside the running mesh. */
  async audit(waitMs = 180_000): Promise<readonly SourceTableAudit[]> {
    const mesh = await loadMesh(this.file, new PluginCatalog())
    const secrets = new Secrets({ env: this.#env, dir: path.dirname(this.file) })
    return auditMesh(mesh, { secrets, logger: pino({ level: 'silent' }), waitMs, signal: new AbortController().signal })
  }

  /** While the mesh is stopped: compacts whatever of the embedded log can be. */
  async cleanLog(): Promise<void> {
    await using log = await openEmbeddedLog({ dir: path.join(this.dataDir, 'log') })
    await log.clean({ force: true })
  }

  /** While the mesh is stopped: appends a copy of the first record of a topic, as a defect of a writer or of the log would. @returns its commit time */
  async doubleRecord(topic: string): Promise<number> {
    const mesh = await loadMesh(this.file, new PluginCatalog())
    const secrets = new Secrets({ env: this.#env, dir: path.dirname(this.file) })
    await using log = await openLog({ mesh, secrets, logger: pino({ level: 'silent' }), readOnly: false })
    await using registry = await openRegistry({ mesh, secrets })
    await using writer = await log.openWriter('defect')
    const bounds = await log.bounds(topic)
    const from = bounds.filter(({ start, end }) => end > start).map(({ partition, start }) => ({ topic, partition, offset: start }))
    for await (const { frame, partition } of log.consume(from, new AbortController().signal)) {
      const [record] = records(frame)
      if (record === undefined) continue
      const decoders = new RecordDecoders(registry)
      await decoders.prepare(frame)
      const change = decoders.decode(frame, record)!
      const part = (start: number, end: number) => (start < 0 ? null : Buffer.from(frame.subarray(start, end)))
      const copy = {
        key: part(record.keyFrom, record.keyTo),
        value: part(record.valueFrom, record.valueTo),
        headers: [['pos', recordHeader(frame, record, 'pos')!]] as const,
      }
      const { buffer, end, count } = frameOf([copy], Date.now())
      await writer.append({ frames: [{ topic, partition, buffer, end, count }], count, progress: new Map() })
      return Number(change.committedAt / 1000n)
    }
    throw new Error(`${topic} is empty`)
  }
}
