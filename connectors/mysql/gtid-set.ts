import { invariant, MillraceError } from '../../core/plugin.ts'

/** Whole numbers from `from` up to but not including `to`, as the server encodes them. */
interface Interval {
  from: number
  to: number
}

/**
 * A set of MySQL's GTIDs, tagged ones (8.3 and later) too: by source `uuid` or `uuid:tag`, disjoint intervals in rising order. Its size rises by one with every
 * transaction, also when another server goes on: that is what commits are numbered by.
 */
export class GtidSet {
  readonly #sources = new Map<string, Interval[]>()
  #size = 0
  #text: string | null = ''

  get size(): number {
    return this.#size
  }

  /** @param text as `@@gtid_executed` gives it. @throws source.protocol */
  static parse(text: string): GtidSet {
    const set = new GtidSet()
    for (const part of text.split(',')) {
      const [uuid, ...items] = part.trim().toLowerCase().split(':')
      if (uuid === '') continue
      let tag = ''
      for (const item of items) {
        const match = /^(\d+)(?:-(\d+))?$/.exec(item.trim())
        if (match === null) tag = item.trim()
        else set.#addInterval(sourceName(uuid!, tag), Number(match[1]), Number(match[2] ?? match[1]) + 1)
      }
      if (!/^[0-9a-f-]{36}$/.test(uuid!) || items.length === 0) throw new MillraceError('source.protocol', `${JSON.stringify(part)} is not a GTID set`)
    }
    return set
  }

  /** @returns false when the set has it already */
  add(uuid: string, tag: string, number: number): boolean {
    const source = sourceName(uuid, tag)
    const last = this.#sources.get(source)?.at(-1)
    this.#text = null
    if (last !== undefined && last.to === number) {
      last.to++
      this.#size++
      return true
    }
    const before = this.#size
    this.#addInterval(source, number, number + 1)
    return this.#size > before
  }

  #addInterval(source: string, from: number, to: number): void {
    if (!Number.isSafeInteger(to) || from < 1 || to <= from) throw new MillraceError('source.protocol', `${from}-${to - 1} is no interval of GTIDs`)
    const old = this.#sources.get(source) ?? []
    const merged: Interval[] = []
    const fresh = { from, to }
    for (const interval of old) {
      if (interval.to < fresh.from || interval.from > fresh.to) merged.push(interval)
      else {
        fresh.from = Math.min(fresh.from, interval.from)
        fresh.to = Math.max(fresh.to, interval.to)
      }
    }
    merged.push(fresh)
    merged.sort((a, b) => a.from - b.from)
    const count = (intervals: readonly Interval[]) => intervals.reduce((sum, { from, to }) => sum + to - from, 0)
    this.#size += count(merged) - count(old)
    this.#sources.set(source, merged)
    this.#text = null
  }

  /** Those of the set that `other` does not have. */
  without(other: GtidSet): GtidSet {
    const rest = new GtidSet()
    for (const [source, intervals] of this.#sources) {
      const taken = other.#sources.get(source) ?? []
      for (const { from, to } of intervals) {
        let at = from
        for (const gap of taken) {
          if (gap.to <= at || gap.from >= to) continue
          if (gap.from > at) rest.#addInterval(source, at, gap.from)
          at = gap.to
        }
        if (at < to) rest.#addInterval(source, at, to)
      }
    }
    return rest
  }

  /** The server's own form. */
  toString(): string {
    if (this.#text !== null) return this.#text
    const uuids = new Map<string, string[]>()
    for (const source of [...this.#sources.keys()].sort()) {
      const [uuid, tag] = source.split(':')
      const parts = uuids.get(uuid!) ?? []
      if (tag !== undefined) parts.push(tag)
      for (const { from, to } of this.#sources.get(source)!) parts.push(to - from === 1 ? `${from}` : `${from}-${to - 1}`)
      uuids.set(uuid!, parts)
    }
    this.#text = [...uuids].map(([uuid, parts]) => `${uuid}:${parts.join(':')}`).join(',')
    return this.#text
  }

  /** As COM_BINLOG_DUMP_GTID takes it; with tags in the form of MySQL 8.3. */
  encode(): Buffer {
    const tagged = [...this.#sources.keys()].some((source) => source.includes(':'))
    const head = Buffer.alloc(8)
    const count = BigInt(this.#sources.size)
    head.writeBigUInt64LE(tagged ? (1n << 56n) | (count << 8n) | 1n : count)
    const parts = [head]
    for (const source of [...this.#sources.keys()].sort()) {
      const intervals = this.#sources.get(source)!
      const [uuid, tag = ''] = source.split(':')
      parts.push(Buffer.from(uuid!.replaceAll('-', ''), 'hex'))
      // a tag has at most 32 characters, so its length takes one byte: shifted, with the lowest bit clear
      if (tagged) parts.push(Buffer.from([tag.length << 1]), Buffer.from(tag))
      const numbers = Buffer.alloc(8 + 16 * intervals.length)
      numbers.writeBigUInt64LE(BigInt(intervals.length))
      intervals.forEach(({ from, to }, i) => {
        numbers.writeBigUInt64LE(BigInt(from), 8 + 16 * i)
        numbers.writeBigUInt64LE(BigInt(to), 16 + 16 * i)
      })
      parts.push(numbers)
    }
    return Buffer.concat(parts)
  }
}

function sourceName(uuid: string, tag: string): string {
  return tag === '' ? uuid : `${uuid}:${tag}`
}

/** Where MariaDB's stream is: the last GTID of each domain. Its numbers rise within a domain, so their sum rises with every transaction. */
export class MariadbPosition {
  readonly #domains = new Map<number, { readonly server: number; readonly sequence: number }>()
  #sum = 0
  #text: string | null = ''

  get sum(): number {
    return this.#sum
  }

  /** @param text as `@@gtid_binlog_pos` gives it. @throws source.protocol */
  static parse(text: string): MariadbPosition {
    const position = new MariadbPosition()
    for (const gtid of text.split(',')) {
      if (gtid.trim() === '') continue
      const match = /^(\d+)-(\d+)-(\d+)$/.exec(gtid.trim())
      if (match === null) throw new MillraceError('source.protocol', `${JSON.stringify(gtid)} is not a GTID of MariaDB`)
      invariant(position.add(Number(match[1]), Number(match[2]), Number(match[3])), 'a domain comes once')
    }
    return position
  }

  covers(domain: number, sequence: number): boolean {
    return sequence <= (this.#domains.get(domain)?.sequence ?? 0)
  }

  /** @returns false when the number does not rise within its domain */
  add(domain: number, server: number, sequence: number): boolean {
    const last = this.#domains.get(domain)?.sequence ?? 0
    if (sequence <= last || !Number.isSafeInteger(sequence)) return false
    this.#domains.set(domain, { server, sequence })
    this.#sum += sequence - last
    this.#text = null
    return true
  }

  toString(): string {
    this.#text ??= [...this.#domains]
      .sort(([a], [b]) => a - b)
      .map(([domain, { server, sequence }]) => `${domain}-${server}-${sequence}`)
      .join(',')
    return this.#text
  }
}
