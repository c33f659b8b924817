/** Child of embedded-log-killed.test.ts: appends known batches, five at a time, and says which are acknowledged, until it is killed; no more than so many. */
import { writeSync } from 'node:fs'
import { type EmbeddedLog, openEmbeddedLog } from '../../core/log/embedded/embedded-log.ts'
import { knownBatch, TOPICS } from './known-batches.ts'

const [dir, segmentBytes, most] = process.argv.slice(2) as [string, string, string]
const log: EmbeddedLog = await openEmbeddedLog({ dir, segmentBytes: Number(segmentBytes), tombstoneMs: 0, cleanEveryMs: 15 })
await log.ensureTopics(TOPICS)
const writer = await log.openWriter('node')
const outstanding: Promise<void>[] = []
const first = ((writer.progress.get('n') as number | undefined) ?? -1) + 1
for (let n = first; n < first + Number(most); n++) {
  outstanding.push(writer.append(knownBatch(n)).then(() => void writeSync(1, `${n}\n`)))
  if (outstanding.length === 5) await outstanding.shift()
}
// the kill comes
setInterval(() => {}, 1000)
