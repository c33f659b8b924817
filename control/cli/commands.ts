import type { Command } from './command.ts'

/** In the order of the overview, by name. Only the code of the one that runs is loaded: a process that goes on for long keeps none of the others in memory. */
export const COMMANDS: Readonly<Record<string, () => Promise<Command>>> = {
  run: async () => (await import('./run-command.ts')).runCommand,
  agent: async () => (await import('./agent-command.ts')).agentCommand,
  check: async () => (await import('./check-command.ts')).checkCommand,
  status: async () => (await import('./status-command.ts')).statusCommand,
  audit: async () => (await import('./audit-command.ts')).auditCommand,
  pause: async () => (await import('./pause-command.ts')).pauseCommand,
  resume: async () => (await import('./pause-command.ts')).resumeCommand,
  resnapshot: async () => (await import('./resnapshot-command.ts')).resnapshotCommand,
  compact: async () => (await import('./compact-command.ts')).compactCommand,
  tap: async () => (await import('./tap-command.ts')).tapCommand,
  search: async () => (await import('./search-command.ts')).searchCommand,
  schemas: async () => (await import('./schemas-command.ts')).schemasCommand,
  registry: async () => (await import('./registry-command.ts')).registryCommand,
  plugins: async () => (await import('./plugins-command.ts')).pluginsCommand,
  new: async () => (await import('./new-command.ts')).newCommand,
  deprovision: async () => (await import('./deprovision-command.ts')).deprovisionCommand,
}
