/** JSON with whole numbers beyond 2^53 as bigint: Iceberg's snapshot ids have 63 bits. */

type SourceReviver = (this: unknown, key: string, value: unknown, context: { readonly source?: string }) => unknown
const parse = JSON.parse as (text: string, reviver: SourceReviver) => unknown
const { rawJSON } = JSON as unknown as { rawJSON(text: string): unknown }

/** Numbers that a double holds exactly stay numbers; longer whole numbers become bigint. @throws SyntaxError */
export function parseLosslessJson(text: string): unknown {
  return parse(text, (_key, value, { source }) =>
    typeof value === 'number' && !Number.isSafeInteger(value) && source !== undefined && /^-?\d+$/.test(source) ? BigInt(source) : value,
  )
}

export function stringifyLosslessJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, (_key, entry: unknown) => (typeof entry === 'bigint' ? rawJSON(String(entry)) : entry), indent)
}
