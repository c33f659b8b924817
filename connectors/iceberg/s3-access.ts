/** How an S3 store is reached: from the sink's settings, from what a REST catalog vends with a table, or from both. */
import { MillraceError } from '../../core/plugin.ts'

export interface S3Settings {
  readonly endpoint?: string | undefined
  readonly region?: string | undefined
  readonly pathStyle?: boolean | undefined
  readonly accessKeyId?: string | undefined
  readonly secretAccessKey?: string | undefined
  readonly sessionToken?: string | undefined
}

export interface S3Access {
  readonly endpoint: string
  readonly region: string
  readonly pathStyle: boolean
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
  /** When the credentials end, in milliseconds; null when they do not, or nobody said so. */
  readonly endsAt: number | null
}

/** Properties that hold for locations with a prefix, with the REST specification's names (`s3.access-key-id`…). */
export interface StorageConfig {
  readonly prefix: string
  readonly properties: Readonly<Record<string, string>>
}

/** What the settings say goes first, one property at a time; keys, secret and token only together. @throws config.invalid, sink.forbidden */
export function s3Access(location: string, settings: S3Settings, vended: readonly StorageConfig[]): S3Access {
  const property: Record<string, string> = {}
  const fitting = vended.filter(({ prefix }) => location.startsWith(prefix)).sort((a, b) => a.prefix.length - b.prefix.length)
  for (const { properties } of fitting) Object.assign(property, properties)
  const region = settings.region ?? property['s3.region'] ?? property['client.region'] ?? 'us-east-1'
  const endpoint = settings.endpoint ?? property['s3.endpoint']
  const bucket = location.replace(/^s3[an]?:\/\//, '').split('/')[0]!
  const pathStyle = settings.pathStyle ?? (property['s3.path-style-access'] === undefined ? undefined : property['s3.path-style-access'] === 'true')
  const keys =
    settings.accessKeyId !== undefined
      ? { id: settings.accessKeyId, secret: settings.secretAccessKey, token: settings.sessionToken, end: undefined }
      : {
          id: property['s3.access-key-id'],
          secret: property['s3.secret-access-key'],
          token: property['s3.session-token'],
          end: property['s3.session-token-expires-at-ms'],
        }
  if (keys.id === undefined || keys.secret === undefined) {
    const signs = property['s3.remote-signing-enabled'] === 'true'
    throw new MillraceError('sink.forbidden', `there are no keys for ${location}${signs ? ': the REST catalog offers remote signing only' : ''}`, {
      fix: 'set s3.accessKeyId and s3.secretAccessKey on the sink, or let the REST catalog vend credentials',
    })
  }
  return {
    endpoint: endpoint ?? `https://s3.${region}.amazonaws.com`,
    region,
    // a bucket with dots in its name does not fit Amazon's certificate
    pathStyle: pathStyle ?? (endpoint !== undefined || bucket.includes('.')),
    accessKeyId: keys.id,
    secretAccessKey: keys.secret,
    ...(keys.token === undefined ? {} : { sessionToken: keys.token }),
    endsAt: keys.end === undefined ? null : Number(keys.end),
  }
}
