import { expect, test } from 'vitest'
import { CdcDirectory, type CdcSegment } from '../../../../connectors/cassandra/cdc-directory.ts'
import type { CdcFiles } from '../../../../connectors/cassandra/cdc-files.ts'

const SEGMENT: CdcSegment = { id: 1, name: 'CommitLog-7-1.log', file: '/x/CommitLog-7-1.log', indexName: 'CommitLog-7-1_cdc.idx', hasIndex: true }

/** Gives the texts one after another, the last one for ever; null: there is no file. */
function directoryOf(...texts: readonly (string | null)[]): CdcDirectory {
  let at = 0
  const text = () => texts[Math.min(at, texts.length - 1)]!
  const files: Partial<CdcFiles> = {
    path: '/x',
    text: async () => {
      const now = text()
      at++
      return now
    },
    size: async () => (text() === null ? null : 1),
  }
  return new CdcDirectory(files as CdcFiles)
}

test('an index that is being written is read again until it says what is known already', async () => {
  expect(await directoryOf('', '24', '', '248104').indexAt(SEGMENT, 248_104)).toEqual({ until: 248_104, completed: false })
  expect(await directoryOf('', '248104\nCOMPLETED').indexAt(SEGMENT, 0)).toEqual({ until: 248_104, completed: true })
})

test('one that goes on saying less is believed after a while, and one that is not there at once', async () => {
  expect(await directoryOf('', '24').indexAt(SEGMENT, 248_104, 50)).toEqual({ until: 24, completed: false })
  expect(await directoryOf('').indexAt(SEGMENT, 1, 50)).toBe(null)
  expect(await directoryOf(null).indexAt(SEGMENT, 1)).toBe(null)
})
