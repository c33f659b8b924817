import { z } from 'zod'

const catalog = z.discriminatedUnion('kind', [
  z.strictObject({
    kind: z.literal('sql').describe("The catalog that PyIceberg's SqlCatalog and Java's JdbcCatalog share, in a SQLite file"),
    path: z.string().min(1).optional().describe('The SQLite file; default <warehouse>/catalog.db'),
    name: z.string().min(1).default('millrace').describe("The catalog's name in the file; readers must use the same"),
  }),
  z.strictObject({
    kind: z.literal('rest').describe('Any Iceberg REST catalog'),
    uri: z.url().describe('Address of the catalog, without /v1'),
    warehouse: z.string().optional().describe('Warehouse that the catalog is asked for'),
    prefix: z.string().optional().describe('Path prefix; default: what the catalog says'),
    token: z.string().optional().describe('Bearer token, as a secret reference'),
    credential: z.string().optional().describe('client_id:client_secret for a token, as a secret reference'),
    scope: z.string().optional().describe('OAuth scope; default catalog'),
    tokenUri: z.url().optional().describe('Where credential is exchanged for a token; default: what the catalog says, else its own /v1/oauth/tokens'),
  }),
])

const s3 = z
  .strictObject({
    endpoint: z.url().optional().describe("Address of the store (MinIO, SeaweedFS, Ceph, R2); default Amazon's of the region, or what the REST catalog says"),
    region: z.string().min(1).optional().describe('Region that requests are signed for; default what the REST catalog says, else us-east-1'),
    pathStyle: z.boolean().optional().describe('Bucket in the path (true) or in the host name; default true where an endpoint is set'),
    accessKeyId: z.string().min(1).optional().describe('Key; without one, the REST catalog is asked to vend credentials'),
    secretAccessKey: z.string().min(1).optional().describe('Its secret, as a secret reference'),
    sessionToken: z.string().min(1).optional().describe('Session token of temporary keys, as a secret reference'),
  })
  .refine((value) => (value.accessKeyId === undefined) === (value.secretAccessKey === undefined), 'set accessKeyId and secretAccessKey together')

export const settings = z
  .strictObject({
    warehouse: z
      .string()
      .min(1)
      .optional()
      .describe('Folder or s3:// location of the tables; required with the SQL catalog, unused with a REST catalog, which says itself where tables lie'),
    catalog: catalog.default({ kind: 'sql', name: 'millrace' }).describe('Who keeps which state of a table is current'),
    s3: s3.optional().describe('How the S3 store is reached where tables lie under s3://'),
    namespace: z.string().min(1).optional().describe("Namespace of the tables, dots separate levels; default the source's"),
    commitRows: z.int().min(1).max(1_000_000).default(50_000).describe('Changes per commit at most'),
    commitBytes: z
      .int()
      .min(1024)
      .default(64 * 1024 * 1024)
      .describe('Bytes of changes per commit at most'),
    commitMs: z.int().min(0).default(1000).describe('Milliseconds after which changes are committed even when few'),
    compression: z.enum(['snappy', 'zstd', 'gzip', 'none']).default('zstd').describe('Compression of Parquet files'),
    keepSnapshots: z.int().min(10).default(10).describe('Newest snapshots that never expire'),
    keepSnapshotsMs: z.int().min(0).default(300_000).describe('Milliseconds for which older snapshots stay as well, so that long reads can end'),
    compactAfterDeleteFiles: z
      .int()
      .min(0)
      .default(100)
      .describe('Rewrite the table without delete files when it has this many; 0 never. Costs one pass over the table'),
    compactAfterSmallFiles: z.int().min(0).default(100).describe('Merge data files below 16 MiB and 100,000 rows when there are this many; 0 never'),
  })
  .superRefine((value, context) => {
    if (value.catalog.kind === 'sql' && value.warehouse === undefined) {
      context.addIssue({ code: 'custom', path: ['warehouse'], message: 'set warehouse to a folder or an s3:// location: the tables lie there' })
    }
    if (value.catalog.kind !== 'sql' || value.warehouse === undefined) return
    if (/^(?!file:|s3:)[a-z0-9]+:\/\//.test(value.warehouse)) {
      context.addIssue({ code: 'custom', path: ['warehouse'], message: 'set warehouse to a folder or an s3:// location: other stores are not supported' })
    } else if (value.warehouse.startsWith('s3:')) {
      if (value.catalog.path === undefined)
        context.addIssue({
          code: 'custom',
          path: ['catalog'],
          message: 'set catalog.path to a local SQLite file, or use a REST catalog: a database cannot lie in S3',
        })
      if (value.s3?.accessKeyId === undefined)
        context.addIssue({ code: 'custom', path: ['s3'], message: 'set s3.accessKeyId and s3.secretAccessKey: nobody vends credentials with the SQL catalog' })
    }
  })

export type IcebergSettings = z.infer<typeof settings>
