import { expect, test } from 'vitest'
import { differingSettings } from '../../../../../core/log/kafka/kafka-topics.ts'

const WEEK = String(7 * 24 * 3600 * 1000)
const policy = (text: string, more: Readonly<Record<string, string>> = {}) => ({ 'cleanup.policy': text, ...more })
const retention = (ms: string) => policy('delete', { 'retention.ms': ms })

/** What differs, with ! where records would be lost. */
const differing = (wanted: Readonly<Record<string, string>>, found: Readonly<Record<string, string>>) =>
  differingSettings(wanted, found).map(({ name, loses }) => `${name}${loses ? '!' : ''}`)

test.each([
  [policy('compact'), policy('compact'), []],
  [policy('compact'), policy('compact,delete'), ['cleanup.policy!']],
  [policy('compact'), policy('delete'), ['cleanup.policy!']],
  [policy('delete'), policy('compact'), ['cleanup.policy!']],
  [policy('delete'), policy('delete, compact'), ['cleanup.policy!']],
  [policy('compact,delete'), policy('compact'), ['cleanup.policy']],
  [policy('compact,delete'), policy('delete,compact'), []],
  [retention('-1'), retention('-1'), []],
  [retention('-1'), retention(WEEK), ['retention.ms!']],
  [retention('3600000'), retention(WEEK), ['retention.ms']],
  [retention(WEEK), retention('3600000'), ['retention.ms!']],
  [retention(WEEK), retention('-1'), ['retention.ms']],
  // without deletion by age its time says nothing
  [policy('compact', { 'retention.ms': '-1' }), policy('compact', { 'retention.ms': '3600000' }), []],
  [policy('compact', { 'delete.retention.ms': WEEK }), policy('compact', { 'delete.retention.ms': '86400000' }), ['delete.retention.ms']],
  [policy('compact', { 'delete.retention.ms': '86400000' }), policy('compact', { 'delete.retention.ms': WEEK }), []],
])('a stream that wants %o and finds %o: %o', (wanted, found, expected) => {
  expect(differing(wanted, found)).toEqual(expected)
})
