import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { ERROR_CODES } from '../../../core/errors.ts'
import { errorsPage, REFERENCE_FOLDER, settingsPage } from '../../../tools/generate-reference.ts'

const written = (page: string) => readFileSync(new URL(page, REFERENCE_FOLDER), 'utf8')

test('the reference of errors is up to date, with every code once: npm run docs', () => {
  const page = written('errors.md')
  expect(page).toBe(errorsPage())
  for (const code of Object.keys(ERROR_CODES)) expect(page.split(`| \`${code}\` |`)).toHaveLength(2)
})

test('the reference of settings is up to date: npm run docs', async () => {
  expect(written('settings.md')).toBe(await settingsPage())
})
