import { setTimeout as delay } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { CdcDirectory, type CdcSegment } from '../../../../connectors/cassandra/cdc-directory.ts'
import type { CdcFiles } from '../../../../connectors/cassandra/cdc-files.ts'

const SEGMENT: CdcSegment = { id: 1, name: 'CommitLog-7-1.log', file: '/x/CommitLog-7-1.log', indexName: 'CommitLog-7-1_cdc.idx', hasIndex: true }
/** Longer than any machine stands still. */
const LONG_MS = 3_600_000

/** Gives the texts one after another, the last one for ever; null: there is no file. */
function directoryOf(...texts: readonly (string | null)[]): CdcDirectory {
  return slowDirectoryOf(0, ...texts)
}

/** The same, where the first look takes so many milliseconds. */
function slowDirectoryOf(firstMs: number, ...texts: readonly (string | null)[]): CdcDirectory {
  let at = 0
  const text = () => texts[Math.min(at, texts.length - 1)]!
  const files: Partial<CdcFiles> = {
    path: '/x',
    text: async () => {
      const now = text()
      if (at++ === 0 && firstMs > 0) await delay(firstMs)
      return now
    },
    size: async () => (text() === null ? null : 1),
  }
  return new CdcDirectory(files as CdcFiles)
}

test('an index that is being written is read again until it says what is known already', async () => {
  expect(await directoryOf('', '24', '', '248104').indexAt(SEGMENT, 248_104, LONG_MS)).toEqual({ until: 248_104, completed: false })
  expect(await directoryOf('', '248104\nCOMPLETED').indexAt(SEGMENT, 0, LONG_MS)).toEqual({ until: 248_104, completed: true })
})

test('one that goes on saying less is believed after a while, and one that is not there at once', async () => {
  expect(await directoryOf('', '24').indexAt(SEGMENT, 248_104, 50)).toEqual({ until: 24, completed: false })
  expect(await directoryOf('').indexAt(SEGMENT, 1, 50)).toBe(null)
  expect(await directoryOf(null).indexAt(SEGMENT, 1, LONG_MS)).toBe(null)
})

test('a look that took longer than that itself is not believed', async () => {
  expect(await slowDirectoryOf(60, '24', '248104').indexAt(SEGMENT, 248_104, 50)).toEqual({ until: 248_104, completed: false })
})
