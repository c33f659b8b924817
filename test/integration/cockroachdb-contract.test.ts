import { describe } from 'vitest'
import { sourceContract } from '../../testing/source.contract.ts'
import { TRANSPORTS } from './cockroachdb-transports.ts'

for (const { name, provision, can, skip } of TRANSPORTS) {
  describe.skipIf(skip !== null)(`over a stand-in for the server${skip === null ? '' : ` (skipped: ${skip})`}`, () => {
    sourceContract(`cockroachdb ${name}`, () => provision(), can)
  })
}
