import { asMillraceError, MillraceError } from '../errors.ts'
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

/** `error`, with which a sink parks the stream `topic`; its fix says how to do without the stream, too. */
export function parkedStream(topic: string, error: MillraceError): MillraceError {
  const { code, message, fix, cause } = error
  const without = `leave it out: '!${topic}' in the sink's \`from\``
  return new MillraceError(code, message, { cause: cause ?? error, fix: fix === undefined ? without : `${fix}; or ${without}` })
}
