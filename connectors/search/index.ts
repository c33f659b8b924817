import path from 'node:path'
import { z } from 'zod'
import { asMillraceError, definePlugin, type Finding, type PluginContext } from '../../core/plugin.ts'
import { openIndexFile } from './index-file.ts'
import { SearchSink } from './search-sink.ts'

const config = z.strictObject({
  path: z.string().min(1).optional().describe("File of the indexes; it is made when missing. Default: search.db in the node's data folder."),
  index: z.string().min(1).default('{table}').describe('Name of the index; {namespace} and {table} stand for those of each stream.'),
  text: z.array(z.string().min(1)).min(1).optional().describe('Columns to search in. Default: all that hold text.'),
  commitRows: z.int().min(1).max(1_000_000).default(2_000).describe('Rows per transaction at most.'),
  commitMs: z.int().min(1).max(3_600_000).default(250).describe('Age in milliseconds at which a smaller batch is written.'),
})

export type SearchConfig = z.infer<typeof config>

/** Where the indexes of a node lie: for the sink and for `millrace search`. */
export function indexFile(settings: Pick<SearchConfig, 'path'>, dataDir: string): string {
  return path.resolve(settings.path ?? path.join(dataDir, 'search.db'))
}

/** Name of the index of a stream. */
function indexName(settings: Pick<SearchConfig, 'index'>, stream: { readonly namespace: string; readonly table: string }): string {
  return settings.index.replaceAll('{namespace}', () => stream.namespace).replaceAll('{table}', () => stream.table)
}

export default definePlugin<SearchConfig>({
  kind: 'sink',
  name: 'search',
  summary: 'Full-text search in an SQLite file, without a server.',
  config: config as z.ZodType<SearchConfig>,
  async check(settings: SearchConfig, context: PluginContext): Promise<readonly Finding[]> {
    const file = indexFile(settings, context.dataDir)
    try {
      openIndexFile(file).close()
      return [{ level: 'ok', subject: 'index file', message: settings.path === undefined ? "search.db in the node's data folder" : `${file} can be written` }]
    } catch (thrown) {
      const error = asMillraceError(thrown)
      return [{ level: 'error', subject: 'index file', message: error.message, ...(error.fix === undefined ? {} : { fix: error.fix }) }]
    }
  },
  open(settings, context, stream) {
    return SearchSink.open({
      file: indexFile(settings, context.dataDir),
      index: indexName(settings, stream),
      topic: stream.topic,
      text: settings.text,
      readOnly: context.readOnly === true,
      limits: { rows: settings.commitRows, bytes: 8 * 1024 * 1024, ageMs: settings.commitMs },
    })
  },
})
