import path from 'node:path'
import { asMillraceError, MillraceError } from '../../core/errors.ts'
import type { SinkNode } from '../../core/mesh/mesh.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { type Command, flag, textOption } from './command.ts'

const KIND = 'search'

export const searchCommand: Command = {
  name: 'search',
  summary: 'Search an index that a search sink keeps',
  help: `millrace search INDEX QUERY --mesh FILE [options]

Every word must occur, in any order; word* is a beginning; nothing else has a meaning, so any text is a safe query. An index is called after its table
unless the sink says otherwise.

Examples:
  millrace search products 'red shoe*' --mesh shop.mesh.yaml
  millrace search products 'title : shoe NOT red' --fts5 --mesh shop.mesh.yaml --limit 3

Options:
  --mesh FILE   the mesh with the search sink
  --limit N     hits at most; default 10
  --fts5        QUERY is in the query language of SQLite FTS5`,
  options: { mesh: { type: 'string' }, limit: { type: 'string' }, fts5: { type: 'boolean' } },
  arguments: [2, 2],
  async run(input) {
    const [index, query] = input.arguments as [string, string]
    const file = textOption(input, 'mesh')
    if (file === undefined)
      throw new MillraceError('config.invalid', 'search needs the mesh whose sink keeps the index', { fix: `millrace search ${index} QUERY --mesh FILE` })
    const limitText = textOption(input, 'limit') ?? '10'
    if (!/^[1-9]\d{0,5}$/.test(limitText))
      throw new MillraceError('config.invalid', `--limit ${limitText} is no whole number from 1 on`, { fix: 'write --limit 10' })
    const mesh = await loadMesh(file, input.plugins)
    const sinks = mesh.sinks.filter(({ plugin }) => plugin.name === KIND)
    if (sinks.length === 0)
      throw new MillraceError('config.invalid', `${file} has no sink of kind ${KIND}`, { fix: 'add one: sinks: { search: { kind: search, from: [shop] } }' })
    const secrets = input.secrets(mesh.dir)
    const { searchIndex } = await import('../../connectors/search/search-index.ts')
    const { indexFile } = await import('../../connectors/search/index.ts')
    const look = (node: SinkNode) => {
      const settings = node.settings.resolve(secrets, mesh.dir) as { path?: string }
      const at = indexFile(settings, path.join(mesh.dataDir, 'nodes', node.name))
      return searchIndex(at, index, query, { limit: Number(limitText), syntax: flag(input, 'fts5') ? 'fts5' : 'words' })
    }
    const hits = firstThatHas(sinks, look)
    const text =
      hits.length === 0
        ? 'nothing found'
        : hits.map(({ key, snippet, score }) => `${Object.values(key).join(', ')}  ${snippet}  (${score.toFixed(2)})`).join('\n')
    return { exitCode: 0, result: { index, hits }, text }
  },
}

/** An index may be kept by any of several sinks; the last error is told when none has it. */
function firstThatHas<T, R>(candidates: readonly T[], look: (one: T) => R): R {
  for (const [i, one] of candidates.entries()) {
    try {
      return look(one)
    } catch (error) {
      if (i === candidates.length - 1 || asMillraceError(error).code !== 'config.invalid') throw error
    }
  }
  throw new MillraceError('invariant.broken', 'no sink to look in')
}
