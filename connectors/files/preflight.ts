import { asMillraceError, type Finding, type PluginContext } from '../../core/plugin.ts'
import { FileSet } from './file-set.ts'
import type { FilesConfig } from './files-config.ts'
import { TableShapes } from './table-shapes.ts'

/** Looks at the folder, and whether the first line of each file can be read as its table's. */
export async function checkFiles(config: FilesConfig, context: PluginContext): Promise<readonly Finding[]> {
  const failed = (subject: string, thrown: unknown): Finding => {
    const { message, fix } = asMillraceError(thrown)
    return { level: 'error', subject, message, ...(fix === undefined ? {} : { fix }) }
  }
  await using files = new FileSet(config, context)
  try {
    await files.begin()
  } catch (error) {
    return [failed('directory', error)]
  }
  const shapes = new TableShapes(config, {})
  const findings: Finding[] = [
    { level: 'ok', subject: 'directory', message: `${config.directory} has ${files.files.length} files of ${files.rules.size} tables` },
  ]
  for (const file of files.files) {
    try {
      await shapes.reader(file, files.rules.get(file.table)!)
    } catch (error) {
      findings.push(failed(file.name, error))
    }
  }
  return findings
}
