import { agentCommand } from './agent-command.ts'
import { auditCommand } from './audit-command.ts'
import { checkCommand } from './check-command.ts'
import type { Command } from './command.ts'
import { deprovisionCommand } from './deprovision-command.ts'
import { newCommand } from './new-command.ts'
import { pauseCommand, resumeCommand } from './pause-command.ts'
import { pluginsCommand } from './plugins-command.ts'
import { registryCommand } from './registry-command.ts'
import { resnapshotCommand } from './resnapshot-command.ts'
import { runCommand } from './run-command.ts'
import { schemasCommand } from './schemas-command.ts'
import { searchCommand } from './search-command.ts'
import { statusCommand } from './status-command.ts'
import { tapCommand } from './tap-command.ts'

/** In the order of the overview. */
export const COMMANDS: readonly Command[] = [
  runCommand,
  agentCommand,
  checkCommand,
  statusCommand,
  auditCommand,
  pauseCommand,
  resumeCommand,
  resnapshotCommand,
  tapCommand,
  searchCommand,
  schemasCommand,
  registryCommand,
  pluginsCommand,
  newCommand,
  deprovisionCommand,
]
