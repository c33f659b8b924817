import fc from 'fast-check'
import { expect, it } from 'vitest'
import { TablePatterns } from '../../../../core/plugin.ts'

it('takes tables that a pattern matches and none leaves out, in any order of the patterns', () => {
  const patterns = new TablePatterns(['!public.tmp_*', 'public.*', 'sales.order', '*.audit'])
  const taken = (id: string) => patterns.matches(...(id.split(/\.(.*)/).slice(0, 2) as [string, string]))
  expect(['public.a', 'public.A.b', 'sales.order', 'x.audit'].map(taken)).toEqual([true, true, true, true])
  expect(['public.tmp_1', 'sales.orders', 'sales.order_lines', 'xpublic.a', 'x.audit2'].map(taken)).toEqual([false, false, false, false, false])
  expect(() => new TablePatterns(['orders'])).toThrow('not a table pattern')
})

it('treats every other character of a pattern as itself', () => {
  fc.assert(
    fc.property(
      fc.string({ minLength: 1 }).filter((name) => !name.includes('*')),
      (name) => {
        expect(new TablePatterns([`s.${name}`]).matches('s', name)).toBe(true)
        expect(new TablePatterns([`s.${name}`]).matches('s', `${name}x`)).toBe(false)
      },
    ),
  )
})
