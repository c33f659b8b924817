import type { Logger } from 'pino'
import { type AuditStatus, type CapturedStream, ContinuousAudit, describeDifference, type LandedStream } from '../audit/continuous-audit.ts'
import { asMillraceError } from '../errors.ts'
import type { Log } from '../log/log.ts'
import { pause } from '../retry.ts'

/** Windows are a minute long: a look every other second names a difference soon after its window rests. */
const LOOK_MS = 2000

export interface AuditLoopOptions {
  readonly log: Log
  readonly logger: Logger
  readonly signal: AbortSignal
  /** What was captured of these topics. */
  readonly captured: (topics: ReadonlySet<string>) => Iterable<CapturedStream>
  readonly landed: () => readonly LandedStream[]
}

/** Runs the continuous audit beside the nodes. It stops nothing, and makes no node unhealthy: it tells. */
export class AuditLoop {
  readonly #audit: ContinuousAudit
  readonly finished: Promise<void>

  constructor(options: AuditLoopOptions) {
    this.#audit = new ContinuousAudit(options.log, (difference, untold) => {
      const facts = { code: 'audit.unequal', ...difference, untold, fix: 'millrace audit FILE --windows says where it was lost; --show-keys which rows differ' }
      const since = untold === 0 ? '' : `, after ${untold} others of this window since it was told last`
      options.logger.error(facts, `the audit found a difference: ${describeDifference(difference)}${since}`)
    })
    this.finished = this.#run(options)
  }

  get status(): AuditStatus {
    return this.#audit.status
  }

  async #run({ logger, signal, captured, landed }: AuditLoopOptions): Promise<void> {
    while (!signal.aborted) {
      await pause(LOOK_MS, signal)
      if (signal.aborted) return
      try {
        // both of one moment: nothing may be awaited between them
        const streams = landed()
        const topics = new Set(streams.map(({ topic }) => topic))
        const sources = new Map(Array.from(captured(topics), (stream) => [stream.topic, stream]))
        await this.#audit.look(sources, streams, Date.now())
      } catch (error) {
        // the nodes themselves report a log that is away
        logger.debug({ err: asMillraceError(error).message }, 'the audit could not look')
      }
    }
  }
}
