import { createPrivateKey, createPublicKey, sign, verify } from 'node:crypto'
import { expect, test } from 'vitest'
import { signEd25519 } from '../../../../connectors/mysql/ed25519.ts'

/** What stands before the 32 bytes of a private key in DER. */
const PKCS8 = Buffer.from('302e020100300506032b657004220420', 'hex')
const bytes = (n: number, length: number) => Buffer.from(Array.from({ length }, (_, i) => (n * 151 + i * i * 89 + i * 37) & 255))

test('a secret of 32 bytes signs as OpenSSL signs with it', () => {
  for (let n = 0; n < 40; n++) {
    const secret = bytes(n, 32)
    const message = bytes(n + 1000, n * 3)
    const key = createPrivateKey({ key: Buffer.concat([PKCS8, secret]), format: 'der', type: 'pkcs8' })
    const signature = signEd25519(secret, message)
    expect(signature).toEqual(sign(null, message, key))
    expect(verify(null, message, createPublicKey(key), signature)).toBe(true)
  }
})

// MariaDB's documentation and its server give this public key for the password `secret`
test('a password of any length is a secret', () => {
  const spki = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), Buffer.from('ZIgUREUg5PVgQ6LskhXmO+eZLS0nC8be6HPjYWR4YJY=', 'base64')])
  const key = createPublicKey({ key: spki, format: 'der', type: 'spki' })
  const nonce = bytes(7, 32)
  expect(verify(null, nonce, key, signEd25519(Buffer.from('secret'), nonce))).toBe(true)
  expect(verify(null, nonce, key, signEd25519(Buffer.from('Secret'), nonce))).toBe(false)
})
