import table from '../../tools/service-ports.json' with { type: 'json' }

/** The version that the tests run and docker-compose.yml names: the tag of the service's image. */
export function serviceVersion(name: keyof typeof table): string {
  return table[name].image.split(':')[1]!
}
