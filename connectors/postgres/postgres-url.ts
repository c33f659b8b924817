/** Connection URLs as libpq takes them: `postgres://user:password@host1:5432,host2:5433/database?target_session_attrs=read-write`. */

const SHAPE = /^(postgres(?:ql)?:\/\/(?:[^@/?#]*@)?)([^/?#]*)((?:\/[^?#]*)?)(\?[^#]*)?$/
const HOST = /^(?:\[[0-9a-fA-F:.%]+\]|[^:,[\]]+)(?::\d{1,5})?$/
const ATTRIBUTE = 'target_session_attrs'
/** Only a server that can be written to has our slot, so these mean the same here. */
const WRITABLE = new Set(['any', 'read-write', 'primary'])

/** One URL for each host, in order, without `target_session_attrs`; a URL of another shape as it is. */
export function hostUrls(url: string): readonly string[] {
  const match = SHAPE.exec(url)
  if (match === null) return [url]
  const [, front, hosts, path, query = ''] = match
  const parameters = new URLSearchParams(query)
  if (!hosts!.includes(',') && !parameters.has(ATTRIBUTE)) return [url]
  parameters.delete(ATTRIBUTE)
  const rest = parameters.size === 0 ? '' : `?${parameters.toString()}`
  return hosts!.split(',').map((host) => `${front}${host}${path}${rest}`)
}

/** What is wrong with the hosts of a URL, or null. */
export function urlMistake(url: string): string | null {
  const match = SHAPE.exec(url)
  if (match === null) return null
  const [, , hosts, , query = ''] = match
  const asked = new URLSearchParams(query).get(ATTRIBUTE)
  if (asked !== null && !WRITABLE.has(asked)) return `${ATTRIBUTE}=${asked}: a source is read from the primary, so read-write, primary or any`
  const bad = hosts!.includes(',') ? hosts!.split(',').find((host) => !HOST.test(host)) : undefined
  return bad === undefined ? null : `${JSON.stringify(bad)} is no host or host:port`
}
