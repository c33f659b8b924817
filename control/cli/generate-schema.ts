/** Writes mesh-config/mesh.schema.json from the zod schemas of the frame and of the package's plugins: `node control/cli/generate-schema.ts`. */
import { writeFileSync } from 'node:fs'
import { MillraceError } from '../../core/errors.ts'
import { meshJsonSchema } from '../../core/mesh/mesh-json-schema.ts'
import { PluginCatalog } from '../../core/runtime/plugin-catalog.ts'

export const SCHEMA_FILE = new URL('../../mesh-config/mesh.schema.json', import.meta.url)

/** @throws config.unknown_plugin when a plugin of the package does not load */
export async function schemaText(): Promise<string> {
  const plugins = (await new PluginCatalog().all()).map(({ plugin }) => {
    if (plugin instanceof MillraceError) throw plugin
    return plugin
  })
  return `${JSON.stringify(meshJsonSchema(plugins), null, 2)}\n`
}

if (import.meta.main) writeFileSync(SCHEMA_FILE, await schemaText())
