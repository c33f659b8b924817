import { MillraceError, type PluginContext, type Provision, type SourceProvisions } from '../../core/plugin.ts'
import { CatalogConnection } from './catalog-connection.ts'
import { parseLsn } from './lsn.ts'
import { readServer } from './open-postgres.ts'
import { objectName, type PostgresConfig } from './postgres-config.ts'
import { reachServer } from './postgres-hosts.ts'
import { dropPublication, findPublication } from './publication.ts'
import { dropSlot, findSlot, type Slot } from './slot.ts'

const MIB = 1024 * 1024

/** The slot and the publication of a source. A slot holds WAL back for as long as it is there, so a source that is given up must not leave it. */
export const postgresProvisions: SourceProvisions<PostgresConfig> = {
  async list(config, context) {
    await using catalog = new CatalogConnection(await reachServer(config), config.silenceMs)
    const { slot, publication } = namesOf(config, context)
    return await catalog.run('to look at the slot and the publication', async (client) => {
      const server = await readServer(client)
      const found: Provision[] = []
      const held = await findSlot(client, slot, server.version)
      if (held !== null) {
        const head = (await client.query<{ lsn: string }>(`select ${server.standby ? 'pg_last_wal_replay_lsn' : 'pg_current_wal_lsn'}()::text as lsn`)).rows[0]
        found.push({ kind: 'replication slot', name: slot, note: noteOf(held, parseLsn(head!.lsn)), stays: foreign(held, server.database) })
      }
      const published = await findPublication(client, publication)
      if (published !== null) {
        found.push({ kind: 'publication', name: publication, note: null, stays: published.own ? null : 'Millrace did not make it' })
      }
      return found
    })
  },

  async drop(config, context) {
    await using catalog = new CatalogConnection(await reachServer(config), config.silenceMs)
    const { slot, publication } = namesOf(config, context)
    const server = await catalog.run('to look at the server', readServer)
    if (server.standby) {
      throw new MillraceError('source.unprepared', 'the server is a standby: slot and publication are dropped on its primary', {
        fix: 'name the primary; `url` may list all hosts: host1:5432,host2:5432',
      })
    }
    await catalog.run('to drop the slot', async (client) => {
      const held = await findSlot(client, slot, server.version)
      if (held !== null && foreign(held, server.database) === null) await dropSlot(client, slot, server.version)
    })
    // after the slot, which cannot be decoded without it
    await catalog.run('to drop the publication', (client) => dropPublication(client, publication))
  },
}

function namesOf(config: PostgresConfig, context: PluginContext): { readonly slot: string; readonly publication: string } {
  const name = objectName(context.mesh, context.node)
  return { slot: config.slot ?? name, publication: config.publication ?? name }
}

function foreign({ plugin, database }: Slot, ours: string): string | null {
  return plugin === 'pgoutput' && database === ours ? null : `it is for ${plugin} in database ${database}`
}

function noteOf({ activePid, restartLsn }: Slot, head: bigint): string {
  const keeps = restartLsn === null ? 'keeps no WAL any more' : `keeps ${(Number(head - restartLsn) / MIB).toFixed(1)} MiB of WAL`
  return activePid === null ? keeps : `${keeps}; the server process ${activePid} streams from it`
}
