import path from 'node:path'
import type { Logger } from 'pino'
import type { Log } from '../log/log.ts'
import type { Mesh } from '../mesh/mesh.ts'
import type { Secrets } from '../mesh/secrets.ts'
import type { EmbeddedRegistry } from '../schema/embedded-registry.ts'
import type { SchemaRegistry } from '../schema/registry.ts'
import type { RegistryServer } from '../schema/serve-registry.ts'

export interface OpenLogOptions {
  readonly mesh: Mesh
  readonly secrets: Secrets
  readonly logger: Logger
  /** Beside a process that runs the mesh: takes no lock and writes nothing. */
  readonly readOnly: boolean
}

/** Loads the code of the mesh's log and registry, and opens nothing. @throws config.* */
export async function loadCode({ mesh, secrets }: Pick<OpenLogOptions, 'mesh' | 'secrets'>): Promise<void> {
  const isEmbedded = ({ kind }: { readonly kind: string }) => kind === 'embedded'
  await (isEmbedded(mesh.log.resolve(secrets, mesh.dir)) ? import('../log/embedded/embedded-log.ts') : import('../log/kafka/kafka-log.ts'))
  await (isEmbedded(mesh.registry.resolve(secrets, mesh.dir)) ? import('../schema/embedded-registry.ts') : import('../schema/confluent-registry.ts'))
}

/** Opens the mesh's log; only the code of its kind is loaded. @throws log.locked, log.unreachable, config.* */
export async function openLog({ mesh, secrets, logger, readOnly }: OpenLogOptions): Promise<Log> {
  const config = mesh.log.resolve(secrets, mesh.dir)
  if (config.kind === 'embedded') {
    const { openEmbeddedLog } = await import('../log/embedded/embedded-log.ts')
    return openEmbeddedLog({ dir: path.join(mesh.dataDir, 'log'), logger, readOnly })
  }
  const { openKafkaLog } = await import('../log/kafka/kafka-log.ts')
  const { kind, ...options } = config
  return openKafkaLog({ ...defined(options), clientId: config.clientId ?? `millrace-${mesh.name}`, onWarning: (message) => logger.warn(message) })
}

/** Opens the mesh's schema registry. @throws registry.unreachable, registry.refused, config.* */
export async function openRegistry({ mesh, secrets }: Pick<OpenLogOptions, 'mesh' | 'secrets'>): Promise<SchemaRegistry> {
  const config = mesh.registry.resolve(secrets, mesh.dir)
  if (config.kind === 'embedded') {
    const { openEmbeddedRegistry } = await import('../schema/embedded-registry.ts')
    return openEmbeddedRegistry({
      file: path.join(mesh.dataDir, 'registry.db'),
      ...(config.compatibility === undefined ? {} : { compatibility: config.compatibility }),
    })
  }
  const { openConfluentRegistry } = await import('../schema/confluent-registry.ts')
  const { kind, ...options } = config
  return openConfluentRegistry(defined(options))
}

/** Serves the mesh's embedded registry to other programs as its settings say; null when they do not ask for it. @throws config.invalid when the port is taken */
export async function serveOwnRegistry({ mesh, secrets }: Pick<OpenLogOptions, 'mesh' | 'secrets'>, registry: SchemaRegistry): Promise<RegistryServer | null> {
  const config = mesh.registry.resolve(secrets, mesh.dir)
  if (config.kind !== 'embedded' || config.port === undefined) return null
  const { serveRegistry } = await import('../schema/serve-registry.ts')
  return serveRegistry(registry as EmbeddedRegistry, { port: config.port, host: config.host, readOnly: config.readOnly })
}

type Defined<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [K in keyof T as undefined extends T[K] ? never : K]: Defined<T[K]> } & {
        [K in keyof T as undefined extends T[K] ? K : never]?: Defined<Exclude<T[K], undefined>>
      }
    : T

/** For options with exact optional types: zod leaves absent keys out, but its types say `undefined`. */
function defined<T extends object>(options: T): Defined<T> {
  return options as Defined<T>
}
