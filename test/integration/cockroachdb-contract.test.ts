import { sourceContract } from '../../testing/source.contract.ts'
import { provisionCockroachdb } from './cockroachdb-source.ts'

sourceContract('cockroachdb, over a stand-in for its server', () => provisionCockroachdb(), { changesKeys: true, keepsNothing: true })
