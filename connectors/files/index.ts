import { definePlugin } from '../../core/plugin.ts'
import { type FilesConfig, filesConfig } from './files-config.ts'
import { openFilesReader } from './files-reader.ts'
import { openFiles } from './files-source.ts'
import { checkFiles } from './preflight.ts'

export default definePlugin<FilesConfig>({
  kind: 'source',
  name: 'files',
  summary: 'Captures the lines that are appended to NDJSON and CSV files of a directory, through rotation.',
  config: filesConfig,
  sourceFields: [
    { name: 'file', type: 'string' },
    { name: 'pos', type: 'long' },
  ],
  check: checkFiles,
  open: openFiles,
  openReader: openFilesReader,
})
