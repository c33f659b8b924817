import type pg from 'pg'
import { MillraceError } from '../../core/plugin.ts'
import { cut, endClient } from './catalog-connection.ts'
import { postgresError } from './postgres-error.ts'

/** Connections that read beside each other, made when needed and kept: each {@link Lease} has one to itself. */
export class SnapshotConnections implements AsyncDisposable {
  readonly #connect: () => Promise<pg.Client>
  readonly #idle: pg.Client[] = []
  readonly #busy = new Set<pg.Client>()
  readonly #lost = new WeakSet<pg.Client>()
  #closed = false

  /** @param connect an ordinary connection to the database */
  constructor(connect: () => Promise<pg.Client>) {
    this.#connect = connect
  }

  /** Does `work` on a connection; one on which it failed is not used again. @throws as {@link Lease.ask} */
  async run<T>(doing: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
    using lease = await this.lease(doing)
    const result = await lease.ask(work)
    lease.keep()
    return result
  }

  /** @param doing reads like `to list tables` */
  async lease(doing: string): Promise<Lease> {
    if (this.#closed) throw new MillraceError('source.unreachable', 'the snapshot reader is closed')
    const client = this.#idle.pop() ?? (await this.#made(doing))
    this.#busy.add(client)
    if (this.#closed) cut(client)
    return new Lease(client, doing, (sound) => this.#takeBack(client, sound))
  }

  async #made(doing: string): Promise<pg.Client> {
    try {
      const client = await this.#connect()
      client.on('error', () => this.#lost.add(client))
      client.on('end', () => this.#lost.add(client))
      return client
    } catch (error) {
      throw postgresError(error, doing)
    }
  }

  #takeBack(client: pg.Client, sound: boolean): void {
    if (!this.#busy.delete(client)) return
    const { destroyed } = (client as pg.Client & { readonly connection: pg.Connection }).connection.stream
    if (!sound || this.#closed || destroyed || this.#lost.has(client)) void endClient(client)
    else this.#idle.push(client)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true
    // what they read is of no use to anyone any more
    for (const client of this.#busy) cut(client)
    await Promise.all(this.#idle.splice(0).map(endClient))
  }
}

/** A connection for one piece of work, given back when it is disposed of: ended, with the transaction that is open in it, unless it is to be kept. */
export class Lease implements Disposable {
  readonly client: pg.Client
  readonly #doing: string
  readonly #giveBack: (sound: boolean) => void
  #sound = false

  constructor(client: pg.Client, doing: string, giveBack: (sound: boolean) => void) {
    this.client = client
    this.#doing = doing
    this.#giveBack = giveBack
  }

  /** @throws source.unreachable, source.forbidden, source.unprepared; what `work` throws of ours, and an abort as it is */
  async ask<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    try {
      return await work(this.client)
    } catch (error) {
      if (error instanceof Error && error.name === 'AbortError') throw error
      throw postgresError(error, this.#doing)
    }
  }

  /** No transaction is open in it. */
  keep(): void {
    this.#sound = true
  }

  [Symbol.dispose](): void {
    this.#giveBack(this.#sound)
  }
}
