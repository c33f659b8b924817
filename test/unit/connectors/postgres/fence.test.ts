import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fullXid, hasReached, sees } from '../../../../connectors/postgres/fence.ts'

const fence = { xmin: 0x5_0000_0010n, xmax: 0x5_0000_0020n, inProgress: new Set([0x5_0000_0012n]), lsn: 0x16_b374_d848n }

describe('the fence of a chunk', () => {
  it('sees what was committed, not what ran or came later', () => {
    expect([0x0f, 0x11, 0x12, 0x1f, 0x20, 0x21].map((xid) => sees(fence, xid))).toEqual([true, true, false, true, false, false])
  })

  it('knows transactions of the epoch before and after by their 32 bits', () => {
    expect(sees(fence, 0xffff_fff0)).toBe(true)
    const old = { ...fence, xmin: 0x4_ffff_fff0n, xmax: 0x4_ffff_fffan, inProgress: new Set<bigint>() }
    expect(sees(old, 0x5)).toBe(false)
    fc.assert(
      fc.property(fc.bigInt({ min: 1n << 32n, max: 1n << 62n }), fc.bigInt({ min: -0x7fff_fff0n, max: 0x7fff_fff0n }), (near, distance) => {
        expect(fullXid(near, Number((near + distance) & 0xffff_ffffn))).toBe(near + distance)
      }),
    )
  })

  it('is reached by an LSN at its own, or at the start of the page whose header it follows', () => {
    expect(hasReached(fence, fence.lsn - 1n)).toBe(false)
    expect(hasReached(fence, fence.lsn)).toBe(true)
    for (const header of [24n, 40n]) {
      const atPage = { ...fence, lsn: 8192n * 77n + header }
      expect([hasReached(atPage, 8192n * 77n - 1n), hasReached(atPage, 8192n * 77n)]).toEqual([false, true])
    }
    expect(hasReached({ ...fence, lsn: 8192n * 77n + 48n }, 8192n * 77n + 47n)).toBe(false)
  })
})
