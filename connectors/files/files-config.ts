import { z } from 'zod'
import { parseType } from './column-types.ts'

/** What `{table}` in a pattern stands for. */
const TABLE = '[A-Za-z0-9_-]+'

const rule = z
  .strictObject({
    files: z
      .string()
      .min(1)
      .regex(/^[^/]+$/, 'a file name without folders')
      .describe('Names of the files: `*` for any characters, `{table}` for the name of the table: `{table}.ndjson*`, `orders-*.csv`.'),
    table: z
      .string()
      .regex(new RegExp(`^${TABLE}$`), 'letters, digits, _ and -')
      .optional()
      .describe('Name of the table that all these files are of; when `files` has no `{table}`.'),
    format: z.enum(['ndjson', 'csv']).describe('One JSON object or one record a line.'),
    columns: z
      .record(
        z.string().min(1),
        z
          .string()
          .refine((text) => parseType(text) !== null, 'expected boolean, int32, int64, float64, decimal(p,s), string, json, date, timestamp or timestamptz'),
      )
      .optional()
      .describe('Types by column: `{ id: int64, price: "decimal(12,2)" }`. Default: inferred from the head of the first file (csv: all string).'),
    key: z.array(z.string()).min(1).optional().describe('Columns of the key; without it a row is known by its file and place: `_file`, `_position`.'),
    header: z.boolean().default(true).describe('csv: the first line of each file names its columns; else they are those of `columns`, in their order.'),
    separator: z.string().length(1).default(',').describe('csv: what stands between cells.'),
    null: z.string().default('').describe('csv: what a cell without quotes says for NULL.'),
  })
  .superRefine((one, check) => {
    const issue = (at: string, message: string) => check.addIssue({ code: 'custom', path: [at], message })
    if (one.files.includes('{table}') === (one.table !== undefined)) issue('files', 'name the table: by {table} in files, or by table')
    if (one.format === 'csv' && !one.header && one.columns === undefined) issue('columns', 'files without a header need their columns')
    for (const name of one.key ?? []) if (one.columns !== undefined && !(name in one.columns)) issue('key', `${name} is not among columns`)
    if (one.key !== undefined && one.columns === undefined && one.format === 'ndjson') issue('columns', 'a key needs columns that are declared')
  })

export type TableRule = z.infer<typeof rule>

export const filesConfig = z.strictObject({
  directory: z.string().min(1).describe('The folder; its sub-folders are not looked into.'),
  namespace: z
    .string()
    .regex(/^[A-Za-z0-9_-]+$/)
    .default('files')
    .describe('Namespace of the tables, the middle of their topics.'),
  tables: z.array(rule).min(1).describe('Which files are which tables; the first that fits counts.'),
  pollMs: z.int().min(10).max(60_000).default(250).describe('How often the folder is looked at, in milliseconds.'),
  unrepresentable: z
    .enum(['error', 'text'])
    .default('error')
    .describe('A value that is not of the type of its column: park the table, or carry it as text in a branch of its own (never in a key).'),
})

export type FilesConfig = z.infer<typeof filesConfig>

const escaped = (text: string) => text.replaceAll(/[\\^$.*+?()[\]{}|]/g, '\\$&')

/** Which table a file is of, by its name; null: of none. */
export function tableOf(config: FilesConfig): (name: string) => { readonly table: string; readonly rule: TableRule } | null {
  const rules = config.tables.map((one) => {
    const parts = one.files.split(/(\{table\}|\*)/)
    let named = false
    const pattern = parts.map((part) => {
      if (part === '*') return '.*'
      if (part !== '{table}') return escaped(part)
      if (named) return '\\k<table>'
      named = true
      return `(?<table>${TABLE}?)`
    })
    return { rule: one, pattern: new RegExp(`^${pattern.join('')}$`, 's') }
  })
  return (name) => {
    for (const { rule, pattern } of rules) {
      const found = pattern.exec(name)
      if (found !== null) return { table: rule.table ?? found.groups!.table!, rule }
    }
    return null
  }
}
