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

it('matches schema and table apart, where names have dots, and a pattern of several dots at each of them', () => {
  const tables = [
    ['a', 't'],
    ['a', 'b.t'],
    ['a.b', 't'],
    ['a.b', 'c.t'],
  ] as const
  const of = (pattern: string) => {
    const taken = tables.filter(([namespace, name]) => new TablePatterns([pattern]).matches(namespace, name))
    const left = tables.filter(([namespace, name]) => new TablePatterns(['*.*', `!${pattern}`]).matches(namespace, name))
    expect(left).toEqual(tables.filter((table) => !taken.includes(table)))
    return taken.map((names) => names.join('|'))
  }
  expect(of('a.*')).toEqual(['a|t', 'a|b.t'])
  expect(of('a.b.*')).toEqual(['a|b.t', 'a.b|t', 'a.b|c.t'])
  expect(of('a.b.t')).toEqual(['a|b.t', 'a.b|t'])
  expect(of('a*.t')).toEqual(['a|t', 'a.b|t'])
  expect(of('*.*')).toEqual(['a|t', 'a|b.t', 'a.b|t', 'a.b|c.t'])
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
