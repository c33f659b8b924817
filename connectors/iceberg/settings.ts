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
  }),
])

export const settings = z
  .strictObject({
    warehouse: z
      .string()
      .min(1)
      .optional()
      .describe('Folder for tables and catalog; required with the SQL catalog, unused with a REST catalog, which says itself where tables lie'),
    catalog: catalog.default({ kind: 'sql', name: 'millrace' }).describe('Who keeps which state of a table is current'),
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
      context.addIssue({ code: 'custom', path: ['warehouse'], message: 'set warehouse to a folder: the SQL catalog and its tables lie there' })
    }
    if (value.catalog.kind === 'sql' && value.warehouse !== undefined && /^(?!file:)[a-z0-9]+:\/\//.test(value.warehouse)) {
      context.addIssue({ code: 'custom', path: ['warehouse'], message: 'object stores are not supported yet: set warehouse to a local folder' })
    }
  })

export type IcebergSettings = z.infer<typeof settings>
