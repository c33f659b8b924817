import { ERROR_CODES, type ErrorCode, MillraceError } from '../errors.ts'
import { POSITION_HEADER, type Position, packPosition, unpackPosition } from '../event/position.ts'
import { type FrameRecord, frameOf, recordHeader } from '../event/record-batch.ts'
import type { EncodedBatch, Log, LogPosition, LogWriter, TopicSpec } from '../log/log.ts'

/** A record that a sink could not hold: its bytes as they were, and why. On the log: the same key, value and `pos`, and the cause as headers. */
export interface DeadLetter {
  readonly key: Buffer | null
  readonly value: Buffer | null
  readonly code: ErrorCode
  /** Why, without any value of the row. */
  readonly reason: string
  /** Where the record lies in the log. */
  readonly origin: LogPosition
  /** The change's position in the source; null when the record does not say. */
  readonly position: Position | null
}

/** Dead letters of a sink node: one topic, one partition. */
export function deadLetterTopic(node: string): string {
  return `${node}.dead-letter`
}

/** Kept until someone has looked at them. */
function deadLetterTopicSpec(node: string, replicationFactor: number | null = null): TopicSpec {
  return { topic: deadLetterTopic(node), partitions: 1, retentionMs: null, compacted: false, replicationFactor }
}

const HEADER = {
  code: 'millrace.code',
  reason: 'millrace.reason',
  topic: 'millrace.topic',
  partition: 'millrace.partition',
  offset: 'millrace.offset',
} as const

/** The letters as one batch for `LogWriter.append`. */
export function encodeDeadLetters(node: string, letters: readonly DeadLetter[], timestampMs: number): EncodedBatch {
  const frame = frameOf(
    letters.map((letter) => ({
      key: letter.key,
      value: letter.value,
      headers: [
        ...(letter.position === null ? [] : [[POSITION_HEADER, packPosition(letter.position)] as const]),
        [HEADER.code, Buffer.from(letter.code)],
        [HEADER.reason, Buffer.from(letter.reason)],
        [HEADER.topic, Buffer.from(letter.origin.topic)],
        [HEADER.partition, Buffer.from(String(letter.origin.partition))],
        [HEADER.offset, Buffer.from(String(letter.origin.offset))],
      ] as const,
    })),
    timestampMs,
  )
  return { frames: [{ topic: deadLetterTopic(node), partition: 0, ...frame }], count: letters.length, progress: new Map() }
}

/**
 * The dead letter in a record of a frame; its buffers are slices of the frame.
 * @throws record.malformed when the record is no dead letter
 */
export function decodeDeadLetter(frame: Buffer, record: FrameRecord): DeadLetter {
  const text = (name: string): string => {
    const bytes = recordHeader(frame, record, name)
    if (bytes === null) throw new MillraceError('record.malformed', `the record at offset ${record.offset} is no dead letter: it has no header ${name}`)
    return bytes.toString()
  }
  const code = text(HEADER.code)
  const partition = text(HEADER.partition)
  const offset = text(HEADER.offset)
  if (!Object.hasOwn(ERROR_CODES, code) || !/^\d+$/.test(partition) || !/^\d+$/.test(offset)) {
    throw new MillraceError('record.malformed', `the record at offset ${record.offset} is no dead letter: its headers are not those of one`)
  }
  return {
    key: record.keyFrom < 0 ? null : frame.subarray(record.keyFrom, record.keyTo),
    value: record.valueFrom < 0 ? null : frame.subarray(record.valueFrom, record.valueTo),
    code: code as ErrorCode,
    reason: text(HEADER.reason),
    origin: { topic: text(HEADER.topic), partition: Number(partition), offset: BigInt(offset) },
    position: positionOf(frame, record),
  }
}

/** The letter of a record that lies in `frame`. */
export function deadLetterOf(frame: Buffer, record: FrameRecord, topic: string, partition: number, code: ErrorCode, reason: string): DeadLetter {
  return {
    key: record.keyFrom < 0 ? null : frame.subarray(record.keyFrom, record.keyTo),
    value: record.valueFrom < 0 ? null : frame.subarray(record.valueFrom, record.valueTo),
    code,
    reason,
    origin: { topic, partition, offset: record.offset },
    position: positionOf(frame, record),
  }
}

function positionOf(frame: Buffer, record: FrameRecord): Position | null {
  const packed = recordHeader(frame, record, POSITION_HEADER)
  return packed?.length === 12 ? unpackPosition(packed) : null
}

/** Opens the dead-letter topic and its writer when the first letter comes. Not for concurrent calls. */
export class DeadLetterBox implements AsyncDisposable {
  readonly #node: string
  readonly #log: Log
  readonly #openWriter: () => Promise<LogWriter>
  readonly #redact: (text: string) => string
  #writer: LogWriter | null = null

  /** @param redact masks secrets in reasons, which may be words of the target */
  constructor(node: string, log: Log, openWriter: () => Promise<LogWriter>, redact: (text: string) => string) {
    this.#node = node
    this.#log = log
    this.#openWriter = openWriter
    this.#redact = redact
  }

  /** Durable when it resolves; after an error it may be called again with the same letters. @throws what the log throws */
  async send(letters: readonly DeadLetter[]): Promise<void> {
    if (this.#writer === null) {
      await this.#log.ensureTopics([deadLetterTopicSpec(this.#node)])
      this.#writer = await this.#openWriter()
    }
    try {
      // I9: a letter stays
      const masked = letters.map((letter) => ({ ...letter, reason: this.#redact(letter.reason) }))
      await this.#writer.append(encodeDeadLetters(this.#node, masked, Date.now()))
    } catch (error) {
      // A writer that has failed fails for ever; the next try opens another.
      await this[Symbol.asyncDispose]()
      throw error
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const writer = this.#writer
    this.#writer = null
    await writer?.[Symbol.asyncDispose]()
  }
}
