import { readFileSync } from 'node:fs'

/** The version of the package that this file belongs to, in a clone and in `dist`. */
export function packageVersion(): string {
  for (const up of ['../package.json', '../../package.json']) {
    try {
      const { name, version } = JSON.parse(readFileSync(new URL(up, import.meta.url), 'utf8')) as { name: string; version: string }
      if (name === 'millrace') return version
    } catch {
      // not at this level
    }
  }
  return '0.0.0'
}
