import { MillraceError } from '../../core/plugin.ts'
import { AgentFiles, isLoopback } from './agent-files.ts'
import { type CassandraConfig, foldersOf, isUrl } from './cassandra-config.ts'
import { type CdcFiles, LocalFiles } from './cdc-files.ts'

/** The folders of a source, here and behind agents. @throws config.invalid */
export function filesOf(config: CassandraConfig): readonly CdcFiles[] {
  const folders = foldersOf(config)
  if (new Set(folders).size < folders.length) throw new MillraceError('config.invalid', 'cdcRaw names a folder twice', { fix: 'name each once' })
  return folders.map((folder) => (isUrl(folder) ? agentFiles(folder, config) : new LocalFiles(folder)))
}

function agentFiles(text: string, { agent }: CassandraConfig): CdcFiles {
  const url = URL.canParse(text) ? new URL(text) : null
  if (url === null || url.origin !== text) {
    throw new MillraceError('config.invalid', `${text} in cdcRaw is no address of an agent`, { fix: 'write https://HOST:PORT, and nothing after it' })
  }
  if (agent === undefined) {
    throw new MillraceError('config.invalid', `cdcRaw has ${text}, and there is no \`agent\``, { fix: 'set agent.token as the agent has it' })
  }
  if (url.protocol === 'http:' && !isLoopback(url.hostname)) {
    throw new MillraceError('config.invalid', `${text} would send the token and the log in clear`, {
      fix: 'give the agent agent.cert and agent.key, and write https',
    })
  }
  return new AgentFiles(text, agent)
}
