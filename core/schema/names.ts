/**
 * Names of columns and tables as Avro names, reversibly. An ordinary name is its own Avro name; any other UTF-16 code unit, and a digit at the start,
 * becomes `__x<hex>_`. A name that itself contains `__x` has that first underscore escaped, so that no two names share an Avro name.
 * The empty name is `__x_`.
 */

const ESCAPED = /__x([0-9a-f]*)_/g
const ORDINARY = /^[A-Za-z_][A-Za-z0-9_]*$/

/** An Avro name (`[A-Za-z_][A-Za-z0-9_]*`) for any string; {@link originalName} gives the string back. */
export function avroName(name: string): string {
  if (ORDINARY.test(name) && !name.includes('__x')) return name
  if (name === '') return '__x_'
  let out = ''
  for (let i = 0; i < name.length; i++) {
    const char = name[i]!
    const plain = /[A-Za-z_]/.test(char) || (i > 0 && /[0-9]/.test(char))
    out += plain && !name.startsWith('__x', i) ? char : `__x${name.charCodeAt(i).toString(16)}_`
  }
  return out
}

/** The string that {@link avroName} made `avro` from; other Avro names are themselves. */
export function originalName(avro: string): string {
  return avro.replace(ESCAPED, (_, hex: string) => (hex === '' ? '' : String.fromCharCode(Number.parseInt(hex, 16))))
}

/** A dotted namespace whose parts are Avro names; parts that are Avro names already stay as they are. */
export function avroNamespace(namespace: string): string {
  return namespace
    .split('.')
    .map((part) => (ORDINARY.test(part) ? part : avroName(part)))
    .join('.')
}
