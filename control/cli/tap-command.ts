import { once } from 'node:events'
import { asMillraceError, MillraceError } from '../../core/errors.ts'
import type { Json } from '../../core/event/offset.ts'
import { type FrameRecord, records } from '../../core/event/record-batch.ts'
import type { Log, LogBatch, LogPosition } from '../../core/log/log.ts'
import { decodeDeadLetter } from '../../core/materialize/dead-letter.ts'
import { nearest } from '../../core/mesh/edit-distance.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { openLog, openRegistry } from '../../core/runtime/open-log.ts'
import { RecordDecoders } from '../../core/schema/record-decoder.ts'
import { openCliLogger } from './cli-logger.ts'
import { type Command, type CommandInput, flag, textOption } from './command.ts'
import { changeJson } from './row-json.ts'
import { compileWhere } from './where-predicate.ts'

type JsonObject = { readonly [key: string]: Json }

export const tapCommand: Command = {
  name: 'tap',
  summary: 'Print the changes of a stream as JSON lines, live',
  help: `millrace tap STREAM --mesh FILE [options]

Decodes what lies in the log, whether or not the mesh runs, and goes on with what comes until Ctrl-C. A stream is <source>.<namespace>.<table>; the
records that a sink refused are on <sink>.dead-letter. Each line has op (r read, c created, u updated, d deleted, t truncated), key, before, after.

Examples:
  millrace tap shop.public.orders --mesh shop.mesh.yaml
  millrace tap shop.public.orders --mesh shop.mesh.yaml --where "status = 'paid' and amount >= 100" --columns id,amount
  millrace tap shop.public.orders --mesh shop.mesh.yaml --from-beginning --limit 10
  millrace tap lake.dead-letter --mesh shop.mesh.yaml --from-beginning --until-end

Options:
  --mesh FILE        the mesh whose log is read
  --from-beginning   from the first record that is kept, not from now on
  --until-end        end at the record that is the last one now
  --limit N          end after N lines
  --where CONDITION  only changes whose row (after, or before for a delete) matches
  --columns A,B      only these columns in before and after`,
  options: {
    mesh: { type: 'string' },
    'from-beginning': { type: 'boolean' },
    'until-end': { type: 'boolean' },
    limit: { type: 'string' },
    where: { type: 'string' },
    columns: { type: 'string' },
  },
  arguments: [1, 1],
  async run(input) {
    const stream = input.arguments[0]!
    const file = textOption(input, 'mesh')
    if (file === undefined) throw new MillraceError('config.invalid', 'tap needs the mesh whose log it reads', { fix: `millrace tap ${stream} --mesh FILE` })
    const limit = limitOf(input)
    const where = textOption(input, 'where')
    const predicate = where === undefined ? null : compileWhere(where)
    const columns = textOption(input, 'columns')
      ?.split(',')
      .map((name) => name.trim())
    const mesh = await loadMesh(file, input.plugins)
    const secrets = input.secrets(mesh.dir)
    await using cli = openCliLogger(input, { redact: (text) => secrets.redact(text), level: 'warn' })
    await using log = await openLog({ mesh, secrets, logger: cli.logger, readOnly: true })
    await using registry = await openRegistry({ mesh, secrets })
    const { from, ends } = await bounds(log, stream, flag(input, 'from-beginning'))
    const isDeadLetter = stream.endsWith('.dead-letter')
    const decoders = new RecordDecoders(registry)
    const shown = columns === undefined ? null : new Set(columns)
    let lines = 0
    const stop = new AbortController()
    const signal = AbortSignal.any([input.io.signal, stop.signal])
    const isThrough = () => flag(input, 'until-end') && from.every(({ partition }) => (read.get(partition) ?? 0n) >= (ends.get(partition) ?? 0n))
    const read = new Map(from.map(({ partition, offset }) => [partition, offset]))
    if (limit > 0 && !isThrough()) {
      reading: for await (const batch of log.consume(from, signal)) {
        if (!isDeadLetter) await decoders.prepare(batch.frame)
        for (const record of records(batch.frame)) {
          if (record.offset < read.get(batch.partition)! || (flag(input, 'until-end') && record.offset >= ends.get(batch.partition)!)) continue
          const line = isDeadLetter ? deadLetterJson(batch, record) : recordJson(decoders, batch, record, shown, predicate)
          if (line === null) continue
          if (!input.io.stdout.write(`${JSON.stringify({ stream, partition: batch.partition, offset: record.offset.toString(), ...line })}\n`))
            await once(input.io.stdout, 'drain')
          if (++lines >= limit) break reading
        }
        read.set(batch.partition, batch.nextOffset)
        if (isThrough()) break
      }
      stop.abort()
    }
    return { exitCode: 0, result: undefined, text: null }
  },
}

function limitOf(input: CommandInput): number {
  const text = textOption(input, 'limit')
  if (text === undefined) return Number.POSITIVE_INFINITY
  if (!/^\d{1,15}$/.test(text)) throw new MillraceError('config.invalid', `--limit ${text} is no whole number`, { fix: 'write --limit 10' })
  return Number(text)
}

async function bounds(log: Log, stream: string, fromBeginning: boolean): Promise<{ from: readonly LogPosition[]; ends: ReadonlyMap<number, bigint> }> {
  const topics = (await log.topics()).map(({ topic }) => topic)
  if (!topics.includes(stream)) {
    const meant = nearest(stream, topics)
    const fix =
      topics.length === 0
        ? 'nothing was captured yet: millrace run FILE'
        : meant !== null
          ? `did you mean ${meant}?`
          : `one of: ${topics.slice(0, 20).join(', ')}`
    throw new MillraceError('node.unknown', `the log has no stream ${stream}`, { fix })
  }
  const partitions = await log.bounds(stream)
  return {
    from: partitions.map(({ partition, start, end }) => ({ topic: stream, partition, offset: fromBeginning ? start : end })),
    ends: new Map(partitions.map(({ partition, end }) => [partition, end])),
  }
}

/** Null for a tombstone and for what the predicate leaves out. A record that cannot be decoded is shown as its error: it is never skipped. */
function recordJson(
  decoders: RecordDecoders,
  batch: LogBatch,
  record: FrameRecord,
  columns: ReadonlySet<string> | null,
  predicate: ReturnType<typeof compileWhere> | null,
): JsonObject | null {
  try {
    const change = decoders.decode(batch.frame, record)
    if (change === null || (change.kind === 'row' && change.isTombstone === true)) return null
    if (predicate !== null) {
      const whole = changeJson(change, new Set(predicate.columns))
      if (!predicate.matches((whole.after ?? whole.before ?? whole.key ?? {}) as JsonObject)) return null
    }
    return changeJson(change, columns)
  } catch (thrown) {
    const { code, message } = asMillraceError(thrown)
    return { error: { code, message } }
  }
}

function deadLetterJson(batch: LogBatch, record: FrameRecord): JsonObject {
  const { code, reason, origin, position, key, value } = decodeDeadLetter(batch.frame, record)
  return {
    at: new Date(batch.appendedAt).toISOString(),
    code,
    reason,
    origin: { stream: origin.topic, partition: origin.partition, offset: origin.offset.toString() },
    position: position === null ? null : `${position.commit}/${position.ordinal}`,
    key: key === null ? null : key.toString('base64'),
    value: value === null ? null : value.toString('base64'),
  }
}
