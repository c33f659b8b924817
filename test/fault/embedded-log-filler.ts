/** Child of embedded-log.test.ts: appends known batches until one fails, retries it once in vain, and says how it went. */

import { MillraceError } from '../../core/errors.ts'
import { openEmbeddedLog } from '../../core/log/embedded/embedded-log.ts'
import { knownBatch, TOPICS } from './known-batches.ts'

const log = await openEmbeddedLog({ dir: process.argv[2]! })
await log.ensureTopics(TOPICS)
const writer = await log.openWriter('node')
const codeOf = (error: unknown): string => (error instanceof MillraceError ? error.code : String(error))
for (let landed = 0; ; landed++) {
  const batch = knownBatch(landed)
  const failed = await writer.append(batch).then(() => null, codeOf)
  if (failed === null) continue
  const again = await writer.append(batch).then(() => 'landed', codeOf)
  const ends = (await log.bounds('all')).map(({ end }) => Number(end))
  console.log(JSON.stringify({ landed, failed, again, ends, progress: (await log.progress('node')).get('n') }))
  break
}
await log[Symbol.asyncDispose]()
