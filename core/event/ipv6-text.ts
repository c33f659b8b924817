/** The 16 bytes of an IPv6 address from `at` on, as inet_ntop writes them: RFC 5952, an IPv4 address in it (`::ffff:1.2.3.4`, `::1.2.3.4`) in its own form. */
export function ipv6Text(bytes: Buffer, at = 0): string {
  const words = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(at + 2 * i))
  let best = -1
  let bestLength = 1
  for (let i = 0; i < 8; i++) {
    let end = i
    while (end < 8 && words[end] === 0) end++
    if (end - i > bestLength) {
      best = i
      bestLength = end - i
    }
    if (end > i) i = end
  }
  const isDotted = best === 0 && (bestLength === 6 || (bestLength === 5 && words[5] === 0xffff))
  const shown = words.map((word) => word.toString(16))
  if (isDotted) shown.splice(6, 2, bytes.subarray(at + 12, at + 16).join('.'))
  if (best < 0) return shown.join(':')
  return `${shown.slice(0, best).join(':')}::${shown.slice(best + bestLength).join(':')}`
}
