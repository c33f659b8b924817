import { asMillraceError } from '../errors.ts'
import type { StreamTarget } from '../plugin.ts'
import { tableOf } from '../schema/avro-mapping.ts'
import type { SchemaRegistry } from '../schema/registry.ts'

/** The table behind a topic, from its newest schema; null while it has none yet. @throws registry.unreachable, registry.refused */
export async function describeStream(registry: SchemaRegistry, topic: string): Promise<StreamTarget | null> {
  try {
    const newest = (await registry.versions(`${topic}-value`)).at(-1)
    if (newest === undefined) return null
    const { namespace, name } = tableOf(newest.schema)
    return { topic, namespace, table: name }
  } catch (error) {
    if (asMillraceError(error).code === 'schema.unknown') return null
    throw error
  }
}
