import { DatabaseSync } from 'node:sqlite'
import { type Json, MillraceError, type TableSchema } from '../../core/plugin.ts'
import { guarded, type IndexDescription, isThere, readIndexFile } from './index-file.ts'
import { displayJson, rowCodec, searchText } from './row-codec.ts'

export interface SearchOptions {
  /** Hits at most; 10 when missing. */
  readonly limit?: number
  /** `words`: every word must occur, `word*` is a prefix, punctuation means nothing. `fts5`: the query language of SQLite FTS5, as it is. */
  readonly syntax?: 'words' | 'fts5'
}

export interface SearchHit {
  /** Key columns by name; 64-bit integers and decimals as text. */
  readonly key: Readonly<Record<string, Json>>
  /** The part of the text that matches, with the matches in square brackets. */
  readonly snippet: string
  /** BM25: higher is better, comparable within one search only. */
  readonly score: number
}

/**
 * Searches an index in a file of the search sink, also while the sink writes to it.
 * @throws config.invalid when the file, the index or the query's syntax is wrong, sink.forbidden, sink.unreachable
 */
export function searchIndex(file: string, index: string, query: string, options: SearchOptions = {}): readonly SearchHit[] {
  const match = options.syntax === 'fts5' ? query : wordsQuery(query)
  if (!isThere(file))
    throw new MillraceError('config.invalid', `there is no index file ${file}`, { fix: 'run the mesh first (millrace run), or correct the path' })
  const db = readIndexFile(file)
  try {
    return guarded(file, () => {
      const { id, description } = findIndex(db, file, index)
      const { table, text } = description
      const rows = matching(() =>
        db
          .prepare(
            `SELECT d.id, d.row, f.rank AS rank FROM fts_${id} f JOIN doc_${id} d ON d.id = f.rowid WHERE fts_${id} MATCH ? AND d.row IS NOT NULL ORDER BY f.rank, d.id LIMIT ?`,
          )
          .all(match, options.limit ?? 10),
      ) as { id: number; row: string; rank: number }[]
      const codec = rowCodec(table)
      const hits = rows.map((hit) => ({ ...hit, tuple: codec.decode(hit.row) }))
      const at = new Map(table.columns.map((column, position) => [column.id, position]))
      const found = snippets(
        text.map((column) => column.name),
        hits.map((hit) => ({ id: hit.id, texts: text.map((column) => searchText(table.columns[at.get(column.id)!]!.type, hit.tuple[at.get(column.id)!]!)) })),
        match,
      )
      return hits.map((hit) => ({ key: keyJson(table, hit.tuple), snippet: found.get(hit.id) ?? '', score: -hit.rank }))
    })
  } finally {
    db.close()
  }
}

/** Plain words as an FTS5 query: each is quoted, so no character of it is syntax. @throws config.invalid when there is no word in it */
export function wordsQuery(words: string): string {
  const terms = words.split(/\s+/u).filter((word) => /[\p{L}\p{N}\p{Co}]/u.test(word))
  if (terms.length === 0)
    throw new MillraceError('config.invalid', 'the query has no word to look for', {
      fix: "give one or more words, such as millrace search products 'red shoe*'",
    })
  return terms.map((word) => (word.endsWith('*') ? `${quoted(word.replace(/\*+$/, ''))} *` : quoted(word))).join(' AND ')
}

function quoted(word: string): string {
  return `"${word.replaceAll('"', '""').replaceAll('\0', '')}"`
}

function findIndex(db: DatabaseSync, file: string, index: string): { id: number; description: IndexDescription } {
  const known = db.prepare('SELECT id, name, description FROM millrace_index WHERE description IS NOT NULL ORDER BY name').all() as {
    id: number
    name: string
    description: string
  }[]
  const found = known.find((row) => row.name === index)
  if (found === undefined) {
    throw new MillraceError('config.invalid', `there is no index ${index} in ${file}`, {
      fix: known.length === 0 ? 'nothing is indexed yet: run the mesh first' : `use one of ${known.map((row) => row.name).join(', ')}`,
    })
  }
  return { id: found.id, description: JSON.parse(found.description) as IndexDescription }
}

/** A contentless index has no text to cut snippets from, so the few hits are indexed once more, in memory, and asked the same question. */
function snippets(columns: readonly string[], hits: readonly { readonly id: number; readonly texts: readonly string[] }[], match: string): Map<number, string> {
  const memory = new DatabaseSync(':memory:')
  try {
    memory.exec(`CREATE VIRTUAL TABLE t USING fts5(${columns.map((name) => `"${name}"`).join()}, tokenize='unicode61 remove_diacritics 2')`)
    const insert = memory.prepare(`INSERT INTO t(rowid, ${columns.map((name) => `"${name}"`).join()}) VALUES(?${',?'.repeat(columns.length)})`)
    for (const hit of hits) insert.run(hit.id, ...hit.texts)
    const rows = memory.prepare("SELECT rowid AS id, snippet(t, -1, '[', ']', '…', 16) AS snippet FROM t WHERE t MATCH ?").all(match) as {
      id: number
      snippet: string
    }[]
    return new Map(rows.map((row) => [row.id, row.snippet]))
  } finally {
    memory.close()
  }
}

/** In a query that SQLite prepared before, only the MATCH text can be wrong. */
function matching<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    const { errcode, message } = error as { errcode?: number; message?: string }
    if (errcode !== 1) throw error
    throw new MillraceError('config.invalid', `the query is not valid FTS5: ${message}`, {
      fix: 'search for plain words, or correct it by sqlite.org/fts5.html#full_text_query_syntax (quote words with punctuation: "e-mail")',
      cause: error,
    })
  }
}

function keyJson(table: TableSchema, row: readonly import('../../core/plugin.ts').Value[]): Record<string, Json> {
  return Object.fromEntries(table.key.map((at) => [table.columns[at]!.name, displayJson(table.columns[at]!.type, row[at]!)]))
}
