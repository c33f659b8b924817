import path from 'node:path'
import { crc32 } from 'node:zlib'
import { type CaptureOutput, MillraceError, ScratchFile, viewOf } from '../../core/plugin.ts'
import { BinlogEvent, EVENT, HEADER_BYTES, ROW_EVENTS } from './binlog-event.ts'
import { fileMark, placeText } from './binlog-place.ts'
import { ChangeApplier, type ChangeApplierOptions } from './change-applier.ts'
import type { Charsets } from './column-definition.ts'
import { readStatement, type StatementSession } from './ddl-reader.ts'
import { Definitions, type DefinitionsOptions } from './definitions.ts'
import { EventCutter } from './event-cutter.ts'
import { readGtid, readMariadbGtid } from './gtid-event.ts'
import { GtidSet, MariadbPosition } from './gtid-set.ts'
import { CompressedRows } from './mariadb-compressed.ts'
import { filesReplaced, historyLost, protocolError, streamError } from './mysql-error.ts'
import { isByFile, isSameOffset, lastCommit, type MysqlOffset } from './mysql-offset.ts'
import { type Query, readQuery } from './query-event.ts'
import type { AppliedMark, MysqlFence } from './snapshot-reader.ts'
import { readPayloadHead, uncompress } from './transaction-payload.ts'
import type { WireConnection } from './wire-connection.ts'
import { XaTransactions } from './xa-transactions.ts'

/** Heartbeats come every second when there is nothing else: after this long without any the connection is dead. */
const SILENCE_MS = 15_000
/** A row with its values of up to 1 GB each, before and after, within a payload. */
const MOST_EVENT_BYTES = 2 ** 31
/** Of an event that is still arriving, so much must be there: the packet's OK byte, the event's header, a payload's head. */
const EVENT_START_BYTES = 1 + HEADER_BYTES + 64

export interface ChangeStreamOptions extends ChangeApplierOptions, DefinitionsOptions {
  /** Streaming already. */
  readonly connection: WireConnection
  readonly output: CaptureOutput
  /** What was streamed before, without what comes again; the stream adds to it. Null: the stream is by file, and the connection says where it begins. */
  readonly gtids: GtidSet | MariadbPosition | null
  /** The resume point until the stream has come to it again. */
  readonly from: MysqlOffset
  /** XA that was prepared before the stream began may be committed up to this number: all views have what it changed. Null: none may. */
  readonly settled: bigint | null
  readonly node: string
  readonly checksums: boolean
  readonly charsets: Charsets
  /** See `StatementSession`. */
  readonly lowerCase: boolean
  /** A folder of the stream's own. */
  readonly scratchDir: string
  /** Whether a statement that is not in rows may concern a captured table. */
  readonly concerns: (text: string, session: StatementSession) => boolean
}

/** Beyond it the server cannot be asked for a place by file. */
const MOST_RESUME_POSITION = 2 ** 32
const FILE_START = 4

/** What the stream of a server is at. Runs once. */
export class ChangeStream implements AppliedMark {
  readonly #options: ChangeStreamOptions
  readonly #connection: WireConnection
  readonly #output: CaptureOutput
  readonly #event = new BinlogEvent()
  readonly #compressed = new CompressedRows()
  readonly #applier: ChangeApplier
  readonly #definitions: Definitions
  /** Between two transactions: where the stream stands, in the numbers of fences. Where those are places in files: null until the server said where it begins. */
  #mark: bigint | null
  /** Within a transaction, which a view must see when it has a greater mark than this. */
  #open = false
  /** It goes on after its first statement. */
  #group = false
  /** Position in the file, beyond 32 bits too. */
  #position = 0
  /** When the file was begun, see `BinlogPlace`; null: the file has not said it yet. */
  #created: number | null = null
  /** The resume point. */
  #complete: MysqlOffset
  /** Events that come before the next one: those that lie within the last, or the rows of a prepared transaction that is committed. */
  #inner: Inner | null = null
  readonly #xa: XaTransactions
  /** Of the transaction at hand: its GTID, its number, and where it begins in the file. */
  #gtid = ''
  #commit = 0n
  #beganAt = 0
  /** Where offsets have no gaps, the stream begins before what is prepared: what was captured before the restart comes again, up to this number. */
  readonly #captured: bigint
  /** The same of MariaDB, whose domains do not wait for each other. */
  readonly #capturedGtids: MariadbPosition
  /** The transaction was captured before the restart, its rows and what it did to definitions. */
  #isCaptured = false

  constructor(options: ChangeStreamOptions) {
    this.#options = options
    this.#connection = options.connection
    this.#connection.silenceMs = SILENCE_MS
    this.#output = options.output
    this.#applier = new ChangeApplier(options)
    this.#definitions = new Definitions(this.#applier, options)
    this.#event.expectChecksums(options.checksums)
    const { gtids, from } = options
    const haveGaps = gtids instanceof GtidSet
    this.#mark = haveGaps ? BigInt(gtids.size) : null
    this.#complete = from
    this.#xa = new XaTransactions(options.scratchDir, haveGaps)
    this.#captured = haveGaps ? 0n : lastCommit(from)
    this.#capturedGtids = MariadbPosition.parse(from.flavor === 'mariadb' ? from.gtids : '')
  }

  /** Where the stream is in the server's files. */
  get place(): { readonly file: string; readonly position: number } {
    return { file: this.#event.file, position: this.#position }
  }

  isSeenBy(mark: bigint): boolean {
    return this.#mark !== null && (this.#open ? mark > this.#mark : mark >= this.#mark)
  }

  #offset(): MysqlOffset {
    const { gtids, from } = this.#options
    const last = this.#complete
    const unfinished = { prepared: this.#xa.prepared, ahead: this.#aheadIds() }
    let offset: MysqlOffset
    if (gtids !== null) {
      // what was streamed up to there, and more, before the restart
      if (gtids instanceof MariadbPosition && BigInt(gtids.sum) < this.#captured) return last
      offset = { flavor: from.flavor, gtids: String(gtids), ...unfinished }
    } else {
      const position = this.#position
      if (!isByFile(from) || this.#created === null || position >= MOST_RESUME_POSITION || this.#fileMark < this.#captured) return last
      offset = { flavor: 'mysql', server: from.server, file: this.#event.file, position, created: this.#created, ...unfinished }
    }
    return isSameOffset(last, offset) ? last : offset
  }

  #aheadIds(): readonly string[] | undefined {
    const { ahead } = this.#options
    // the server says first of all where in its files it begins
    if (ahead.ids.length > 0 && this.#event.file !== '') ahead.pass(this.#fileMark)
    return ahead.ids.length === 0 ? undefined : ahead.ids
  }

  /** The end of the event at hand. */
  get #fileMark(): bigint {
    return fileMark(this.#event.file, this.#position)
  }

  /** Yields the resume point after each piece of input. Ends when `signal` aborts. */
  async *run(signal: AbortSignal): AsyncGenerator<MysqlOffset> {
    const connection = this.#connection
    ScratchFile.emptyFolder(this.#options.scratchDir)
    const interrupt = () => connection.interrupt()
    signal.addEventListener('abort', interrupt)
    try {
      while (!signal.aborted) {
        while (connection.next()) {
          const pause = this.#packet()
          if (pause != null) await pause
          if (this.#inner !== null) yield* this.#within(this.#inner, signal)
          if (signal.aborted) return
        }
        if (this.#isLargePayload(connection.arriving)) {
          yield* this.#largePayload(signal)
          continue
        }
        if (!this.#open) {
          this.#complete = this.#offset()
          const pause = this.#placeChunks()
          if (pause !== null) await pause
          if (signal.aborted) return
        }
        yield this.#complete
        if (!(await this.#read())) return
      }
    } finally {
      signal.removeEventListener('abort', interrupt)
      this.#xa.discard()
    }
  }

  async #read(): Promise<boolean> {
    const { chunks } = this.#output
    // a chunk whose place is where an idle stream stands must not wait for the next heartbeat
    chunks.onWaiting = () => this.#connection.nudge()
    try {
      return await this.#connection.read()
    } finally {
      chunks.onWaiting = null
    }
  }

  #isDue(fence: MysqlFence): boolean {
    return this.#mark !== null && fence.mark <= this.#mark
  }

  async *#within({ chunks, held }: Inner, signal: AbortSignal): AsyncGenerator<MysqlOffset> {
    const event = this.#event
    this.#inner = null
    const cutter = new EventCutter(MOST_EVENT_BYTES, event.place)
    try {
      for await (const chunk of chunks) {
        cutter.push(chunk)
        while (cutter.next()) {
          event.readInner(cutter.bytes, cutter.view, cutter.from, cutter.to)
          const pause = this.#apply(cutter.bytes, cutter.view)
          if (pause != null) await pause
          if (this.#inner !== null) yield* this.#within(this.#inner, signal)
          if (signal.aborted) return
        }
        yield this.#complete
      }
      cutter.finish()
      if (held !== undefined) this.#end()
    } finally {
      held?.discard()
    }
  }

  #isLargePayload(start: Buffer | null): start is Buffer {
    return start !== null && start.length >= EVENT_START_BYTES && start[0] === 0 && start[1 + 4] === EVENT.transactionPayload
  }

  /** A compressed transaction that is not to be held in memory: it goes into a file, and is applied from there once its checksum is known to fit. */
  async *#largePayload(signal: AbortSignal): AsyncGenerator<MysqlOffset> {
    const event = this.#event
    const start = this.#connection.arriving!
    event.readHeader(start, viewOf(start), 1, start.length)
    this.#follow(event.nextPosition)
    const { size, place } = event
    const payload = readPayloadHead(start, event.at, start.length, place)
    const end = size - event.checksumBytes
    const file = new ScratchFile(path.join(this.#options.scratchDir, 'payload'))
    try {
      let crc = 0
      for await (const piece of this.#connection.pieces(() => this.#read())) {
        // without the packet's OK byte
        const bytes = file.size === 0 ? piece.subarray(1) : piece
        crc = crc32(bytes.subarray(0, Math.max(0, end - file.size)), crc)
        file.append(bytes)
        yield this.#complete
      }
      if (signal.aborted) return
      if (file.size !== size) throw protocolError(`an event of type ${EVENT.transactionPayload} with ${file.size} of its ${size} bytes`, place)
      if (event.checksumBytes > 0 && Buffer.concat([...file.pieces(end, size)]).readUInt32LE() !== crc) {
        throw protocolError(`an event of type ${EVENT.transactionPayload} whose checksum does not fit its ${size} bytes`, place)
      }
      const from = payload.at - 1
      if (from + payload.size !== end) throw protocolError(`a compressed transaction of ${end - from} bytes instead of ${payload.size}`, place)
      yield* this.#within({ chunks: uncompress(payload, file.pieces(from, end), place) }, signal)
    } finally {
      file.discard()
    }
  }

  #payload(bytes: Buffer): Inner {
    const { at, end, place } = this.#event
    if (!this.#open) throw protocolError('a compressed transaction without a GTID', place)
    const head = readPayloadHead(bytes, at, end, place)
    if (head.at + head.size !== end) throw protocolError(`a compressed transaction of ${end - head.at} bytes instead of ${head.size}`, place)
    return { chunks: uncompress(head, [bytes.subarray(head.at, end)], place) }
  }

  #placeChunks(): Promise<void> | null {
    if (this.#output.chunks.size === 0 || this.#mark === null) return null
    return this.#output.chunks.emit((fence) => this.#isDue(fence as MysqlFence))
  }

  #packet(): Promise<void> | null | undefined {
    const connection = this.#connection
    const { bytes, view, packetAt, packetEnd } = connection
    if (bytes[packetAt] === 0xff) throw streamError(connection.serverError(), this.#options.node)
    if (connection.isEof) throw new MillraceError('source.unreachable', 'the server ended the stream of changes')
    const event = this.#event
    event.read(bytes, view, packetAt + 1, packetEnd)
    if (event.type === EVENT.rotate) {
      this.#position = Number(view.getBigUint64(event.at, true))
      this.#created = null
    } else if (event.nextPosition > 0 && !event.artificial) this.#follow(event.nextPosition)
    return this.#apply(bytes, view)
  }

  /** Positions in events have 32 bits, files may be larger. */
  #follow(next: number): void {
    const high = Math.floor(this.#position / 2 ** 32) * 2 ** 32
    this.#position = high + next < this.#position ? high + 2 ** 32 + next : high + next
  }

  #apply(bytes: Buffer, view: DataView): Promise<void> | null | undefined {
    const event = this.#event
    const { type, at, end } = event
    if ((this.#xa.isHolding || this.#isCaptured) && ROW_EVENTS.has(type)) {
      if (this.#xa.isHolding) this.#xa.hold(event.withoutChecksum(bytes))
      return undefined
    }
    switch (type) {
      case EVENT.tableMap:
        this.#applier.tableMap(bytes, at, end, event)
        return undefined
      case EVENT.writeRows:
      case EVENT.updateRows:
      case EVENT.deleteRows:
      case EVENT.writeRowsV1:
      case EVENT.updateRowsV1:
      case EVENT.deleteRowsV1:
      case EVENT.partialUpdateRows:
        if (!this.#open) throw protocolError('rows outside of a transaction', event.place)
        return this.#applier.rows(type, bytes, view, at, end, event)
      case EVENT.mariadbWriteRowsCompressedV1:
      case EVENT.mariadbUpdateRowsCompressedV1:
      case EVENT.mariadbDeleteRowsCompressedV1:
      case EVENT.mariadbWriteRowsCompressed:
      case EVENT.mariadbUpdateRowsCompressed:
      case EVENT.mariadbDeleteRowsCompressed:
        return this.#inflatedRows(bytes)
      case EVENT.transactionPayload:
        this.#inner = this.#payload(bytes)
        return undefined
      case EVENT.gtid:
      case EVENT.gtidTagged:
      case EVENT.anonymousGtid:
      case EVENT.mariadbGtid:
        return this.#begin(bytes, view)
      case EVENT.xid:
        this.#end()
        return undefined
      case EVENT.xaPrepare:
        return this.#xaPrepare(bytes)
      case EVENT.query:
      case EVENT.executeLoadQuery:
      case EVENT.mariadbQueryCompressed:
        return this.#query(bytes)
      case EVENT.heartbeat:
      case EVENT.heartbeatV2:
        return this.#idle()
      default:
        return this.#other()
    }
  }

  #inflatedRows(bytes: Buffer): Promise<void> | undefined {
    const event = this.#event
    if (!this.#open) throw protocolError('rows outside of a transaction', event.place)
    const rows = this.#compressed
    rows.read(event.type, bytes, event.at, event.end, event)
    return this.#applier.rows(rows.type, rows.bytes, rows.view, 0, rows.length, event)
  }

  #other(): Promise<void> | null {
    const event = this.#event
    switch (event.type) {
      case EVENT.formatDescription:
        this.#beginFile()
        return event.artificial ? null : this.#idle()
      case EVENT.rotate:
      case EVENT.previousGtids:
      case EVENT.mariadbGtidList:
      case EVENT.mariadbCheckpoint:
      case EVENT.stop:
        return event.artificial ? null : this.#idle()
      case EVENT.rowsQuery:
      case EVENT.mariadbAnnotateRows:
      case EVENT.intvar:
      case EVENT.rand:
      case EVENT.userVar:
      case EVENT.appendBlock:
      case EVENT.beginLoadQuery:
        return null
      case EVENT.incident:
        throw historyLost(`the server noted at ${event.place} that its binlog lacks changes`, this.#options.node)
    }
    if (event.ignorable) return null
    if (event.type >= EVENT.mariadbStartEncryption) throw unsupported(event)
    throw protocolError(`an event of unknown type ${event.type}`, event.place)
  }

  #beginFile(): void {
    const { from, node } = this.#options
    this.#created = this.#event.timestamp
    if (isByFile(from) && this.#event.file === from.file && this.#created !== from.created) throw filesReplaced(from, this.#created, node)
  }

  /** Nothing to stream: the place moves on in the files, and chunks of views up to it are due. */
  #idle(): Promise<void> | null {
    if (this.#open) return null
    if (!(this.#options.gtids instanceof GtidSet)) this.#mark = this.#fileMark
    return this.#placeChunks()
  }

  #begin(bytes: Buffer, view: DataView): Promise<void> | null {
    const event = this.#event
    if (this.#open) throw protocolError('a transaction within a transaction', event.place)
    const { gtids } = this.#options
    let committedAt = BigInt(event.timestamp) * 1_000_000n
    let gtid: string | null
    this.#beganAt = this.#position - event.size
    if (gtids instanceof MariadbPosition) {
      const { domain, sequence, isStandalone, isPrepared } = readMariadbGtid(bytes, view, event)
      gtid = `${domain}-${event.serverId}-${sequence}`
      const before = isPrepared ? String(gtids) : ''
      if (!gtids.add(domain, event.serverId, sequence)) throw outOfOrder(gtid, event.place)
      this.#isCaptured = this.#capturedGtids.covers(domain, sequence)
      this.#group = !isStandalone
      this.#commit = BigInt(gtids.sum)
      if (isPrepared) this.#xa.begin(gtid, before)
    } else {
      const found = readGtid(bytes, view, event)
      gtid = found.number === 0 ? null : `${found.uuid}${found.tag === '' ? '' : `:${found.tag}`}:${found.number}`
      committedAt = found.committedAt ?? committedAt
      this.#group = false
      if (gtids !== null) {
        if (gtid === null)
          throw historyLost(`the transaction at ${event.place} has no GTID, and the capture is by GTID: gtid_mode was not ON`, this.#options.node)
        if (!gtids.add(found.uuid, found.tag, found.number)) throw protocolError(`the transaction ${gtid}, which was streamed before,`, event.place)
        this.#commit = BigInt(gtids.size)
      } else {
        // a view that ends where the transaction begins does not have it
        this.#commit = fileMark(event.file, this.#beganAt) + 1n
        this.#isCaptured = this.#commit <= this.#captured
      }
    }
    if (!(gtids instanceof GtidSet)) this.#mark = fileMark(event.file, this.#beganAt)
    this.#gtid = gtid ?? ''
    const place = this.#placeChunks()
    const enter = () => {
      this.#open = true
      this.#applier.begin({ commit: this.#commit, committedAt, source: [gtid, event.file, BigInt(this.#position)] })
    }
    if (place === null) {
      enter()
      return null
    }
    return place.then(enter)
  }

  #end(): void {
    if (!this.#open) throw protocolError('the end of a transaction that did not begin', this.#event.place)
    this.#open = false
    this.#mark = this.#options.gtids instanceof GtidSet ? this.#commit : this.#fileMark
  }

  #query(bytes: Buffer): Promise<void> | undefined {
    const query = readQuery(this.#event, bytes, this.#options.charsets)
    const { text } = query
    if (text === 'BEGIN') {
      this.#group = true
      return undefined
    }
    if (text === 'COMMIT' || text === 'ROLLBACK') {
      this.#end()
      return undefined
    }
    return this.#statement(query)
  }

  #xaPrepare(bytes: Buffer): undefined {
    if (!this.#open) throw protocolError('an XA PREPARE outside of a transaction', this.#event.place)
    const rows = this.#xa.prepare(this.#event, bytes)
    if (rows === null) this.#end()
    else this.#inner = heldRows(rows)
    return undefined
  }

  #xaStatement(text: string): void {
    const { place } = this.#event
    const step = this.#xa.statement(text, this.#gtid, this.#before, place)
    switch (step.kind) {
      case 'go on':
        this.#group = true
        return
      case 'apply':
        this.#inner = heldRows(step.rows)
        return
      case 'unknown':
        if (!this.#isCaptured && !this.#isSettled()) {
          throw historyLost(
            `an XA transaction is committed at ${place} that was prepared before the capture began, so its rows are not known`,
            this.#options.node,
          )
        }
    }
    this.#end()
  }

  #isSettled(): boolean {
    const { settled } = this.#options
    return settled !== null && this.#commit <= settled
  }

  /** Where the transaction at hand begins, or a place before it that the server can be asked for; without meaning for GTIDs. */
  get #before(): string {
    if (this.#created === null) return ''
    const { file } = this.#event
    const last = this.#complete
    const before = isByFile(last) && last.file === file ? last.position : FILE_START
    return placeText({ file, position: this.#beganAt < MOST_RESUME_POSITION ? this.#beganAt : before, created: this.#created })
  }

  async #statement(query: Query): Promise<void> {
    const event = this.#event
    const { text } = query
    const session = { ...query.session, lowerCase: this.#options.lowerCase }
    if (!this.#open) throw protocolError('a statement outside of a transaction', event.place)
    const statement = readStatement(text, session)
    if (statement.kind === 'xa') return this.#xaStatement(text)
    if (statement.kind === 'change' && !this.#isCaptured && this.#options.concerns(text, session)) {
      throw new MillraceError(
        'source.unprepared',
        `changes came as a statement at ${event.place}, so their rows are not known: binlog_format was not ROW where they were made`,
        {
          fix: `SET GLOBAL binlog_format = 'ROW', end the sessions that set another, and read the tables anew: \`millrace run FILE --resnapshot ${this.#options.node}\``,
        },
      )
    }
    await this.#definitions.apply(statement, session.namespace, { place: event.place, mark: this.#fileMark, isCaptured: this.#isCaptured })
    // a transaction that began with BEGIN, and CREATE TABLE … SELECT, go on
    if (!this.#group && !/\bSTART TRANSACTION$/i.test(text)) this.#end()
  }
}

/** Events that are applied before the next one. */
interface Inner {
  readonly chunks: AsyncIterable<Buffer> | Iterable<Buffer>
  /** Rows that were held until their transaction was committed: it ends with them, and they are discarded whatever comes of it. */
  readonly held?: ScratchFile
}

function heldRows(rows: ScratchFile): Inner {
  return { chunks: rows.pieces(), held: rows }
}

function outOfOrder(gtid: string, place: string): MillraceError {
  return new MillraceError('source.unprepared', `the GTID ${gtid} at ${place} does not follow the one before in its domain`, {
    fix: 'SET GLOBAL gtid_strict_mode = ON on all servers, and read the tables anew: `millrace run FILE --resnapshot NODE`',
  })
}

function unsupported(event: BinlogEvent): MillraceError {
  return new MillraceError('config.unsupported', `an event of type ${event.type} at ${event.place}, which Millrace does not read yet`, {
    fix: 'see connectors/mysql/README.md for the setting that makes the server not write it, and read the tables anew: `millrace run FILE --resnapshot NODE`',
  })
}
