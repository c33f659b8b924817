import { type ErrorCode, MillraceError, type SourceLocation } from '../errors.ts'

/** One thing that the lint found; an error keeps the mesh from running. */
export interface MeshFinding {
  readonly level: 'error' | 'warning'
  readonly code: ErrorCode
  readonly message: string
  /** What to write: never the value that stands there, which may be a secret. */
  readonly fix: string
  readonly where: SourceLocation
}

/** `file:line:column code message`, with its fix on the next line. */
export function formatFinding(finding: MeshFinding): string {
  const { file, line, column } = finding.where
  const level = finding.level === 'warning' ? 'warning ' : ''
  return `${file}:${line}:${column} ${level}${finding.code}: ${finding.message}\n  fix: ${finding.fix}`
}

/** Errors first come first, all of them in the message; null when there is none. */
export function findingsError(findings: readonly MeshFinding[]): MillraceError | null {
  const errors = findings.filter((finding) => finding.level === 'error')
  const [first, ...rest] = errors
  if (first === undefined) return null
  const more = rest.map((finding) => `\n${formatFinding(finding)}`).join('')
  return rest.length === 0
    ? new MillraceError(first.code, first.message, { where: first.where, fix: first.fix })
    : new MillraceError(first.code, `${first.message}\n  fix: ${first.fix}${more}`, { where: first.where })
}
