import { describe } from 'vitest'
import { faultCases } from './source/fault-cases.ts'
import { snapshotCases } from './source/snapshot-cases.ts'
import type { ProvisionedSource, SourceCapabilities } from './source/source-driver.ts'
import { SourceBench } from './source/source-run.ts'
import { streamCases } from './source/stream-cases.ts'

export type { Item, ProvisionedSource, SourceCapabilities, TypedTable, Write } from './source/source-driver.ts'

/**
 * What every source holds to: docs in core/capture/source-connector.ts. `provision` makes a database of its own for each test; the source runs under the
 * real capture loop, into a log that the tests stall, kill and read.
 */
export function sourceContract(name: string, provision: () => Promise<ProvisionedSource>, can: SourceCapabilities = {}): void {
  const open = () => SourceBench.open(provision, can)
  describe(`source contract: ${name}`, () => {
    streamCases(open, can)
    snapshotCases(open, can)
    faultCases(open, can)
  })
}
