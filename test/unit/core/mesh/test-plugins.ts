import { z } from 'zod'
import { MillraceError } from '../../../../core/errors.ts'
import type { PluginFinder } from '../../../../core/mesh/read-mesh.ts'
import { definePlugin, type Plugin } from '../../../../core/plugin.ts'

const never = () => Promise.reject(new Error('not opened here'))

export const river = definePlugin({
  kind: 'source',
  name: 'river',
  summary: 'A source.',
  sourceFields: [],
  config: z.strictObject({
    url: z.string().url().describe('Where.'),
    tables: z.array(z.string()).min(1).describe('Which.'),
    port: z.int().min(1).max(65535).optional().describe('Port.'),
    tls: z.boolean().default(false).describe('TLS.'),
    mode: z.enum(['fast', 'slow']).default('fast').describe('Mode.'),
    auth: z
      .discriminatedUnion('kind', [
        z.strictObject({ kind: z.literal('basic'), username: z.string().describe('u'), password: z.string().describe('p') }),
        z.strictObject({ kind: z.literal('none') }),
      ])
      .optional()
      .describe('Auth.'),
  }),
  check: async () => [],
  open: never,
  openReader: never,
})

export const pond = definePlugin({
  kind: 'sink',
  name: 'pond',
  summary: 'A sink.',
  config: z.strictObject({ warehouse: z.string().describe('Folder.'), commitRows: z.int().default(5).describe('Rows.') }),
  check: async () => [],
  open: never,
})

export const testPlugins: PluginFinder = {
  names: ['river', 'pond'],
  async find(kind) {
    const plugin = [river, pond].find(({ name }) => name === kind)
    if (plugin === undefined) throw new MillraceError('config.unknown_plugin', `no plugin is called ${kind}`, { fix: 'see millrace plugins' })
    return plugin as Plugin<unknown>
  },
}
