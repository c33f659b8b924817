import { MillraceError } from '../../../../core/errors.ts'
import type { SchemaRegistry } from '../../../../core/schema/registry.ts'

/** The registry's port over a map of schemas by id, for decoders; the real ones have their own contract suite. */
export function registryOf(schemas: ReadonlyMap<number, string>): SchemaRegistry & { reads: number } {
  const refuse = () => Promise.reject(new Error('not asked for here'))
  return {
    reads: 0,
    schema(id) {
      this.reads++
      const schema = schemas.get(id)
      return schema === undefined ? Promise.reject(new MillraceError('schema.unknown', `no schema ${id}`)) : Promise.resolve(schema)
    },
    register: refuse,
    subjects: refuse,
    versions: refuse,
    incompatibilities: refuse,
    compatibility: refuse,
    setCompatibility: refuse,
    [Symbol.asyncDispose]: () => Promise.resolve(),
  }
}
