import { MillraceError } from '../../core/errors.ts'
import type { Mesh } from '../../core/mesh/mesh.ts'
import { loadMesh } from '../../core/mesh/read-mesh.ts'
import { DataFolder } from '../../core/runtime/data-folder.ts'
import type { Command, CommandInput } from './command.ts'
import { askRunning, commandRunning } from './running-mesh.ts'

export const pauseCommand: Command = {
  name: 'pause',
  summary: 'Let a node stand still until it is resumed, also after a restart',
  help: `millrace pause FILE NODE

The source or sink stops where it is, and everything else goes on. While the mesh runs it happens at once; otherwise with its next start. It stays
paused through every restart, until millrace resume. Nothing is lost meanwhile, but a paused source's database keeps its log for it (Postgres: WAL, until
max_slot_wal_keep_size), and a paused sink must be back before the log's retention takes what it has not read. millrace status shows since when.

Examples:
  millrace pause shop.mesh.yaml lake      while its object store is moved
  millrace resume shop.mesh.yaml lake
  millrace status shop.mesh.yaml --json | jq '.result.nodes[] | {node, state, pausedSince}'`,
  options: {},
  arguments: [2, 2],
  async run(input) {
    const { mesh, node } = await nodeOf(input)
    if ((await askRunning(mesh.dataDir)) !== null) {
      await command(mesh, node, 'pause')
      const since = (await askRunning(mesh.dataDir))?.nodes.find((one) => one.node === node)?.pausedSince ?? null
      return { exitCode: 0, result: { node, paused: true, since, running: true }, text: `${node}: paused` }
    }
    using folder = new DataFolder(mesh.dataDir)
    const since = folder.pause(node)
    return { exitCode: 0, result: { node, paused: true, since, running: false }, text: `${node}: the mesh does not run; paused when it starts` }
  },
}

export const resumeCommand: Command = {
  name: 'resume',
  summary: 'Let a paused or failed node go on',
  help: `millrace resume FILE NODE

A paused source or sink goes on where it stood; one that failed is tried again. While the mesh runs it happens at once; otherwise with its next start.

Examples:
  millrace resume shop.mesh.yaml lake`,
  options: {},
  arguments: [2, 2],
  async run(input) {
    const { mesh, node } = await nodeOf(input)
    if ((await askRunning(mesh.dataDir)) !== null) {
      await command(mesh, node, 'resume')
      return { exitCode: 0, result: { node, paused: false, since: null, running: true }, text: `${node}: goes on` }
    }
    using folder = new DataFolder(mesh.dataDir)
    const said = folder.resume(node) ? 'the mesh does not run; goes on when it starts' : 'the mesh does not run, and the node was not paused'
    return { exitCode: 0, result: { node, paused: false, since: null, running: false }, text: `${node}: ${said}` }
  },
}

/** @throws node.unknown, config.* */
async function nodeOf(input: CommandInput): Promise<{ readonly mesh: Mesh; readonly node: string }> {
  const mesh = await loadMesh(input.arguments[0]!, input.plugins)
  const node = input.arguments[1]!
  const names = [...mesh.sources, ...mesh.sinks].map(({ name }) => name)
  if (!names.includes(node)) throw new MillraceError('node.unknown', `the mesh has no node ${node}`, { fix: `one of: ${names.join(', ')}` })
  return { mesh, node }
}

async function command(mesh: Mesh, node: string, what: 'pause' | 'resume'): Promise<void> {
  if (await commandRunning(mesh.dataDir, node, what)) return
  throw new MillraceError('node.unknown', `the mesh that runs has no node ${node}: its file has changed since it started`, { fix: 'start it again first' })
}
