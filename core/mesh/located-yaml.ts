import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, type Pair, parseAllDocuments } from 'yaml'
import type { SourceLocation } from '../errors.ts'
import type { Json } from '../event/offset.ts'

export type Path = readonly (string | number)[]

/** A YAML text as plain values, with the place of every key and value. */
export interface LocatedYaml {
  /** Null when the text is no single, well-formed document. Objects have own properties only, `__proto__` is refused. */
  readonly value: Json | null
  readonly problems: readonly YamlProblem[]
  /** Where the value at `path` starts, or its key; the nearest parent that exists when there is none. */
  locate(path: Path, what?: 'key' | 'value'): SourceLocation
}

export interface YamlProblem {
  readonly message: string
  readonly fix: string
  readonly where: SourceLocation
}

const MAX_TEXT_CHARS = 1_000_000
const MAX_DEPTH = 64

/**
 * Parses YAML 1.2 core strictly: duplicate keys, tags, anchors' aliases, merge keys, several documents and integers that JavaScript cannot hold
 * are problems, so that the text means exactly what it shows. Never throws; problems come all at once.
 */
export function parseLocatedYaml(text: string, file: string): LocatedYaml {
  const lines = new LineCounter()
  const places = new Map<string, { readonly key: number; readonly value: number }>()
  const problems: YamlProblem[] = []
  const at = (offset: number): SourceLocation => {
    const { line, col } = lines.linePos(offset)
    return { file, line: Math.max(1, line), column: Math.max(1, col) }
  }
  const problem = (offset: number, message: string, fix: string): void => {
    problems.push({ message, fix, where: at(offset) })
  }
  const locate = (path: Path, what: 'key' | 'value' = 'value'): SourceLocation => {
    for (let length = path.length; length >= 0; length--) {
      const place = places.get(JSON.stringify(path.slice(0, length)))
      if (place !== undefined) return at(what === 'key' || length < path.length ? place.key : place.value)
    }
    return at(0)
  }

  const read = (node: Node | null | undefined, path: Path, keyOffset: number): Json => {
    const offset = node?.range?.[0] ?? keyOffset
    places.set(JSON.stringify(path), { key: keyOffset, value: offset })
    if (node === null || node === undefined) return null
    if (path.length > MAX_DEPTH) {
      problem(offset, `nested deeper than ${MAX_DEPTH} levels`, 'no setting lies so deep: remove what encloses it')
      return null
    }
    if (isAlias(node)) {
      problem(offset, `aliases (*${node.source}) are not supported`, 'write the settings out where they are used')
      return null
    }
    if (isScalar(node)) return readScalar(node.value, offset)
    if (isSeq(node)) return node.items.map((item, i) => read(item as Node, [...path, i], (item as Node)?.range?.[0] ?? offset))
    if (isMap(node)) return readMap(node.items as Pair<Node, Node | null>[], path, offset)
    problem(offset, 'this kind of YAML node is not supported', 'write a text, a number, a list or settings in its place')
    return null
  }
  const readScalar = (value: unknown, offset: number): Json => {
    if (typeof value === 'number' && (!Number.isFinite(value) || (Number.isInteger(value) && !Number.isSafeInteger(value)))) {
      problem(offset, 'a number that cannot be held exactly', 'put it in quotes when it is a text')
      return null
    }
    if (value === null || typeof value === 'boolean' || typeof value === 'number' || typeof value === 'string') return value
    problem(offset, 'a value of a type that a mesh has no use for', 'put it in quotes')
    return null
  }
  const readMap = (pairs: readonly Pair<Node, Node | null>[], path: Path, offset: number): Json => {
    const object: Record<string, Json> = {}
    for (const { key, value } of pairs) {
      const keyOffset = key?.range?.[0] ?? offset
      if (!isScalar(key) || key.value === null || typeof key.value === 'object') {
        problem(keyOffset, 'a key must be a plain word', 'name one setting in front of the colon; a text with a colon in it goes into quotes')
        continue
      }
      const name = String(key.value)
      if (name === '__proto__' || name === '<<') {
        problem(keyOffset, `the key ${name} is not supported`, 'write the settings out where they are used')
        continue
      }
      object[name] = read(value, [...path, name], keyOffset)
    }
    return object
  }

  if (text.length > MAX_TEXT_CHARS) {
    problem(0, `the file has more than ${MAX_TEXT_CHARS} characters`, 'name a mesh file; several meshes go into files of their own')
    return { value: null, problems, locate }
  }
  try {
    const documents = parseAllDocuments(text, {
      lineCounter: lines,
      prettyErrors: false,
      uniqueKeys: true,
      strict: true,
      merge: false,
      schema: 'core',
      version: '1.2',
    })
    const list = Array.isArray(documents) ? documents : []
    for (const document of list)
      for (const { pos, message } of [...document.errors, ...document.warnings]) problem(pos[0], yamlMessage(message), yamlFix(message))
    if (list.length > 1) problem(list[1]!.range[0], 'a mesh file holds one YAML document', 'move the second document to a file of its own')
    if (list.length === 0 || (list.length === 1 && isEmpty(list[0]!.contents)))
      problem(0, 'the file is empty', 'start with `mesh: <name>`; see mesh-config/quickstart.mesh.yaml')
    const value = list.length === 1 && problems.length === 0 ? read(list[0]!.contents as Node | null, [], 0) : null
    return { value: problems.length === 0 ? value : null, problems, locate }
  } catch (error) {
    // the parser recurses, so absurd nesting ends in a RangeError
    problem(
      0,
      error instanceof RangeError
        ? 'the file is nested too deeply'
        : `the file cannot be read as YAML: ${error instanceof Error ? error.message : String(error)}`,
      'begin anew from mesh-config/quickstart.mesh.yaml',
    )
    return { value: null, problems, locate }
  }
}

function isEmpty(node: unknown): boolean {
  return node === null || (isScalar(node) && (node.value === null || node.value === ''))
}

function yamlMessage(message: string): string {
  return message.charAt(0).toLowerCase() + message.slice(1)
}

function yamlFix(message: string): string {
  if (/unique/i.test(message)) return 'remove or rename one of the two keys'
  if (/tab/i.test(message)) return 'indent with spaces'
  if (/flow|bracket|[[\]{}]/i.test(message)) return 'close every [ and { and put commas between what they hold'
  if (/quote/i.test(message)) return 'close the quotes on the same line'
  if (/indent|column/i.test(message)) return 'give lines of one block the same indentation, in spaces'
  if (/tag|anchor|alias/i.test(message)) return 'write the value itself; a text that begins with !, & or * goes into quotes'
  return 'correct the line: `key: value`, a space after the colon; a text with special characters goes into quotes'
}
