import pg from 'pg'
import { copyRows } from '../../connectors/postgres/snapshot-copy.ts'
import { describeTable, type MappedTable, SESSION_SETTINGS, type TypeMappingOptions } from '../../connectors/postgres/type-mapping.ts'
import { viewOf } from '../../core/plugin.ts'
import { type TestDatabase, testDatabase } from '../services/postgres.ts'
import { RecordingWriter } from '../unit/connectors/postgres/recording-writer.ts'

export const MAPPING: TypeMappingOptions = { unrepresentable: 'text' }

/** Types of every sort that are not built in. */
export const TYPES = `
  create extension citext; create extension hstore; create extension ltree;
  create type mood as enum ('sad', 'so so', 'happy');
  create domain positive as numeric(8,2) check (value > 0);
  create domain relation as regclass;
  create type address as (number int, street text, codes int[], rest varchar);
  create type granted as (who aclitem, note text);
  create type textrange as range (subtype = text, multirange_type_name = textmultirange)`

/** A database of its own with types of every sort, and a session with the settings that the connector asks for. */
export class PostgresSession {
  readonly client: pg.Client
  readonly #db: TestDatabase

  private constructor(db: TestDatabase, client: pg.Client) {
    this.#db = db
    this.client = client
  }

  static async open(): Promise<PostgresSession> {
    const db = await testDatabase()
    await db.sql(TYPES)
    const client = new pg.Client({ connectionString: db.url })
    await client.connect()
    for (const [name, value] of Object.entries(SESSION_SETTINGS)) await client.query(`set ${name} = '${value}'`)
    return new PostgresSession(db, client)
  }

  async describe(name: string, options = MAPPING): Promise<MappedTable> {
    const { rows } = await this.client.query<{ oid: number }>('select $1::regclass::oid as oid', [name])
    return describeTable(this.client, rows[0]!.oid, options)
  }

  /** Every row of the table through the readers of the binary form (where there is one) and of the text form. */
  async bothForms(mapped: MappedTable, from: string): Promise<{ readonly binary: RecordingWriter; readonly text: RecordingWriter }> {
    const binary = new RecordingWriter(mapped.table)
    const textual = new RecordingWriter(mapped.table)
    const quoted = mapped.columns.map(({ column }) => `"${column.name}"`)
    const readable = mapped.columns.map(({ reader, binaryReadable }) => reader.binary !== null && binaryReadable)
    const copied = await copyRows(
      this.client,
      `copy (select ${quoted.map((name, i) => (readable[i] ? name : `${name}::text`)).join(', ')} from ${from}) to stdout (format binary)`,
      2 ** 30,
      new AbortController().signal,
    )
    const view = viewOf(copied.bytes)
    let at = copied.first
    for (let row = 0; row < copied.rows; row++) {
      at += 2
      binary.row()
      for (const [i, column] of mapped.columns.entries()) {
        const length = view.getInt32(at)
        at += 4
        if (length < 0) binary.null()
        else (readable[i] ? column.binary : column.text)(copied.bytes, view, at, length, binary)
        at += Math.max(0, length)
      }
      binary.end()
    }
    const { rows } = await this.client.query({
      text: `select ${quoted.join(', ')} from ${from}`,
      rowMode: 'array',
      types: { getTypeParser: () => (value: string) => value } as never,
    })
    for (const row of rows as unknown as readonly (readonly (string | null)[])[]) {
      textual.row()
      for (const [i, column] of mapped.columns.entries()) {
        const value = row[i]
        // within other bytes, as on the wire
        const bytes = Buffer.from(`<<${value ?? ''}>>`)
        if (value === null || value === undefined) textual.null()
        else column.text(bytes, viewOf(bytes), 2, bytes.length - 4, textual)
      }
      textual.end()
    }
    return { binary, text: textual }
  }

  async close(): Promise<void> {
    await this.client.end()
    await this.#db.drop()
  }
}
