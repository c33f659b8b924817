/** A certificate authority of a test's own, by openssl. */
import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { onPath } from './maven.ts'

/** Why no certificate can be made here, or null. */
export function opensslSkipReason(): string | null {
  return onPath('openssl') ? null : 'no openssl on PATH'
}

/** Made when it is first asked for something, see {@link opensslSkipReason}. */
export class Authority {
  readonly #dir: string
  readonly #name: string
  #certificate: string | null = null
  #issued = 0

  constructor(dir: string, name: string) {
    this.#dir = dir
    this.#name = name
  }

  /** PEM. */
  get certificate(): string {
    if (this.#certificate === null) {
      openssl(['req', '-x509', ...this.#newKey(this.#name), '-days', '2', '-out', this.#file('pem'), '-subj', `/CN=${this.#name}`])
      this.#certificate = readFileSync(this.#file('pem'), 'utf8')
    }
    return this.#certificate
  }

  /** A certificate, for servers of these names and for clients, and its key: PEM texts. */
  issue(commonName: string, names = 'DNS:localhost,IP:127.0.0.1'): { readonly cert: string; readonly key: string } {
    // the authority's own comes first
    if (this.#certificate === null) void this.certificate
    const name = `${this.#name}-${this.#issued++}`
    const at = (extension: string) => path.join(this.#dir, `${name}.${extension}`)
    writeFileSync(at('ext'), `subjectAltName=${names}\n`)
    openssl(['req', ...this.#newKey(name), '-out', at('csr'), '-subj', `/CN=${commonName}`])
    const signing = ['-CA', this.#file('pem'), '-CAkey', this.#file('key'), '-CAcreateserial', '-days', '2', '-extfile', at('ext')]
    openssl(['x509', '-req', '-in', at('csr'), ...signing, '-out', at('pem')])
    return { cert: readFileSync(at('pem'), 'utf8'), key: readFileSync(at('key'), 'utf8') }
  }

  #file(extension: string): string {
    return path.join(this.#dir, `${this.#name}.${extension}`)
  }

  #newKey(name: string): string[] {
    return ['-newkey', 'rsa:2048', '-nodes', '-keyout', path.join(this.#dir, `${name}.key`)]
  }
}

function openssl(args: readonly string[]): void {
  execFileSync('openssl', args, { stdio: 'ignore' })
}
