import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import table from '../../../tools/service-ports.json' with { type: 'json' }

interface Compose {
  readonly services: Readonly<Record<string, { readonly image: string; readonly ports: readonly string[] }>>
}

test('docker-compose.yml has the services, images and ports of tools/service-ports.json, on the loopback only', () => {
  const compose = parse(readFileSync(new URL('../../../docker-compose.yml', import.meta.url), 'utf8')) as Compose
  const services = Object.fromEntries(Object.entries(compose.services).map(([name, { image, ports }]) => [name, { image, ports }]))
  const expected = Object.fromEntries(
    Object.entries(table).map(([name, { image, host, container }]) => [name, { image, ports: [`127.0.0.1:${host}:${container}`] }]),
  )
  expect(services).toEqual(expected)
  const hosts = Object.values(table).map(({ host }) => host)
  expect(new Set(hosts).size).toBe(hosts.length)
})
