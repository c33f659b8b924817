import { expect, test } from 'vitest'
import type { MeshStatus } from '../../../../core/runtime/mesh-status.ts'
import { Metrics } from '../../../../core/runtime/metrics.ts'

const STATUS: MeshStatus = { mesh: 'm', pid: 1, startedAt: 0, at: 0, ready: true, nodes: [], audit: { throughMs: null, differences: [], uncounted: [] } }
const open = () =>
  new Metrics(
    'm',
    () => STATUS,
    (text) => text,
  )

test('what plugins record before and between scrapes is in each', async () => {
  const metrics = open()
  metrics.record('a', 'retries', 2, 'count')
  metrics.record('a', 'retries', 3, 'count')
  metrics.record('b', 'fill', 0.5, 'gauge')
  const first = await metrics.scrape()
  expect(first.contentType).toMatch(/^text\/plain/)
  expect(first.text).toContain('# TYPE millrace_retries counter')
  expect(first.text).toContain('millrace_retries{node="a",mesh="m"} 5')
  expect(first.text).toContain('millrace_fill{node="b",mesh="m"} 0.5')
  metrics.record('a', 'retries', 1, 'count')
  metrics.record('b', 'retries', 1, 'count')
  metrics.record('b', 'fill', 0.25, 'gauge')
  const { text } = await metrics.scrape()
  expect(text).toContain('millrace_retries{node="a",mesh="m"} 6')
  expect(text).toContain('millrace_retries{node="b",mesh="m"} 1')
  expect(text).toContain('millrace_fill{node="b",mesh="m"} 0.25')
  expect(text).toContain('process_cpu_seconds_total')
})

test('a plugin cannot spoil what is scraped', async () => {
  const metrics = open()
  expect(() => metrics.record('a', 'rows_total', 1, 'gauge')).toThrow(RangeError)
  expect(() => metrics.record('a', 'retries', -1, 'count')).toThrow(RangeError)
  expect(() => metrics.record('a', 'retries', Number.NaN, 'count')).toThrow(RangeError)
  for (const wrong of [5n, '5', null, undefined]) expect(() => metrics.record('a', 'fill', wrong as unknown as number, 'gauge')).toThrow(RangeError)
  metrics.record('a', 'retries', 1, 'count')
  metrics.record('a', 'retries', 7, 'gauge')
  const { text } = await metrics.scrape()
  expect(text).toContain('millrace_retries{node="a",mesh="m"} 1')
  expect(text).toContain('millrace_ready{mesh="m"} 1')
})
