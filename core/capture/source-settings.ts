/** Settings that sources have in common, for the schemas of their plugins: one name means one thing in all of them. */
import { z } from 'zod'
import { isTablePattern } from './table-patterns.ts'

/** PEM texts, as node:tls takes them. */
export const tlsSettings = z.strictObject({
  ca: z.string().optional().describe('Certificate authority in PEM form.'),
  cert: z.string().optional().describe('Client certificate in PEM form.'),
  key: z.string().optional().describe('Key of the client certificate in PEM form.'),
  rejectUnauthorized: z.boolean().default(true).describe('false accepts any certificate: only for trials.'),
})

/** `ssl`. @param tls {@link tlsSettings}, or those with more that the client knows */
export function sslSetting<Tls extends z.ZodType>(tls: Tls) {
  return z.union([z.boolean(), tls]).optional().describe('TLS: true with the well-known authorities, or their settings.')
}

/** `tables`, for `TablePatterns`. @param form what a pattern has before and after its dot: `schema.table` */
export function tablesSetting(form: string, description: string) {
  return z
    .array(z.string().refine(isTablePattern, `expected ${form}, with * for any characters, ! in front to leave out`))
    .min(1)
    .describe(description)
}

/** `unrepresentable`. @param which values the source may have that no Avro type holds */
export function unrepresentableSetting(which: string) {
  return z
    .enum(['error', 'text'])
    .default('error')
    .describe(`Values that no Avro type holds (${which}): park the table, or carry them as text in a branch of their own.`)
}
