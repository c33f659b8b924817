import { type ErrorCode, MillraceError } from '../../core/errors.ts'
import { type RunningMesh, readRunning } from '../../core/runtime/data-folder.ts'
import type { NodeCommand } from '../../core/runtime/http-server.ts'
import type { MeshStatus } from '../../core/runtime/mesh-status.ts'

const PATIENCE_MS = 5000

/** The status of the mesh that runs on a data folder; null when none does. */
export async function askRunning(dataDir: string): Promise<MeshStatus | null> {
  const running = readRunning(dataDir)
  if (running === null) return null
  try {
    const response = await fetch(`http://${urlHost(running)}:${running.port}/status`, { signal: AbortSignal.timeout(PATIENCE_MS) })
    const status = (await response.json()) as MeshStatus
    // after kill -9 another program may have the port
    return status.pid === running.pid && status.mesh === running.mesh ? status : null
  } catch {
    return null
  }
}

/** An address to listen on that stands for all is asked at the local one. */
function urlHost({ host }: RunningMesh): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1'
  return host.includes(':') ? `[${host}]` : host
}

/**
 * Gives a command to a node of the mesh that runs on a data folder.
 * @returns false when it has no such node or table
 * @throws log.unreachable when it does not take the command; what the mesh refuses it with
 */
export async function commandRunning(dataDir: string, node: string, command: NodeCommand, table: string | null = null): Promise<boolean> {
  const running = readRunning(dataDir)
  const refused = (why: string, cause?: unknown) =>
    new MillraceError('log.unreachable', `the mesh did not take the command ${command}: ${why}`, { fix: 'millrace status FILE shows whether it runs', cause })
  if (running === null) throw refused('it has ended')
  const query = table === null ? '' : `?table=${encodeURIComponent(table)}`
  const url = `http://${urlHost(running)}:${running.port}/nodes/${encodeURIComponent(node)}/${command}${query}`
  let response: Response
  try {
    response = await fetch(url, { method: 'POST', signal: AbortSignal.timeout(PATIENCE_MS) })
  } catch (cause) {
    throw refused('it does not answer', cause)
  }
  if (response.status === 404) return false
  if (response.status === 409) {
    const { code, error, fix } = (await response.json()) as { code: ErrorCode; error: string; fix?: string }
    throw new MillraceError(code, error, fix === undefined ? {} : { fix })
  }
  if (!response.ok) throw refused((await response.text()).trim())
  return true
}
