import { sourceContract } from '../../testing/source.contract.ts'
import { TRANSPORTS } from './cockroachdb-transports.ts'

for (const { name, provision, can } of TRANSPORTS) sourceContract(`cockroachdb ${name}, over a stand-in for its server`, () => provision(), can)
