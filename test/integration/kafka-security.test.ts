import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { metadataV9 } from '@platformatic/kafka'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BrokerConnection } from '../../core/log/kafka/broker-connection.ts'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { KafkaSasl } from '../../core/log/kafka/kafka-options.ts'
import { kafkaSettings } from '../../core/log/kafka/kafka-settings.ts'
import { batchOf, idFrame, readCount, startOf, topicSpec } from '../contract/log.contract.ts'
import { type KafkaServer, skipReason, startKafka } from '../services/kafka.ts'
import { findJava } from '../services/maven.ts'

const reason = skipReason()
const PASSWORD = 'only-for-this-test'
const USER = 'millrace'
const SCRAM_JAAS = 'org.apache.kafka.common.security.scram.ScramLoginModule required;'
const PLAIN_JAAS = `org.apache.kafka.common.security.plain.PlainLoginModule required user_${USER}="${PASSWORD}";`

describe.skipIf(reason !== null)(`Kafka over TLS with SASL${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  let dir: string
  let server: KafkaServer
  let ca: Buffer
  let brokers: string[]

  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-kafka-tls-'))
    const keystore = path.join(dir, 'broker.p12')
    const certificate = path.join(dir, 'ca.pem')
    const keytool = (...args: string[]) => execFileSync(path.join(path.dirname(findJava(17)!), 'keytool'), args, { stdio: 'pipe' })
    const store = ['-keystore', keystore, '-storetype', 'PKCS12', '-storepass', PASSWORD]
    keytool('-genkeypair', '-alias', 'broker', '-keyalg', 'RSA', '-dname', 'CN=localhost', '-ext', 'san=dns:localhost,ip:127.0.0.1', '-validity', '2', ...store)
    keytool('-exportcert', '-rfc', '-alias', 'broker', '-file', certificate, ...store)
    ca = readFileSync(certificate)
    server = await startKafka({
      dir: path.join(dir, 'kafka'),
      secure: 'SASL_SSL',
      format: ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => ['--add-scram', `${mechanism}=[name=${USER},password=${PASSWORD}]`]),
      properties: {
        'ssl.keystore.location': keystore,
        'ssl.keystore.type': 'PKCS12',
        'ssl.keystore.password': PASSWORD,
        'listener.name.secure.sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512',
        'listener.name.secure.plain.sasl.jaas.config': PLAIN_JAAS,
        'listener.name.secure.scram-sha-256.sasl.jaas.config': SCRAM_JAAS,
        'listener.name.secure.scram-sha-512.sasl.jaas.config': SCRAM_JAAS,
        // sessions end after this: the client has to renew them while it works
        'listener.name.secure.connections.max.reauth.ms': '1500',
      },
    })
    brokers = [`127.0.0.1:${server.securePort}`]
  })
  afterAll(async () => {
    await server?.kill()
    rmSync(dir, { recursive: true, force: true })
  })

  for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const) {
    test(`${mechanism}: appends and reads go on across session renewals`, async () => {
      const sasl: KafkaSasl = { mechanism, username: USER, password: PASSWORD }
      await using log = await openKafkaLog({ brokers, ssl: { ca }, sasl })
      const topic = `secured-${mechanism}`
      await log.ensureTopics([topicSpec(topic)])
      await using writer = await log.openWriter(topic)
      const until = Date.now() + 4_000
      let count = 0
      const stop = new AbortController()
      const reader = log.consume([startOf(topic)], stop.signal)[Symbol.asyncIterator]()
      while (Date.now() < until || count < 10) {
        await writer.append(batchOf([idFrame(topic, 0, [`${count}`])], { count }))
        expect((await reader.next()).value?.count).toBe(1)
        count++
      }
      stop.abort()
      await reader.return?.()
      const ids = (await readCount(log, [startOf(topic)], count)).map(({ id }) => id)
      expect(ids).toEqual(Array.from({ length: count }, (_, n) => `${n}`))
    })
  }

  test('one connection outlives its session, which the broker would end otherwise', async () => {
    const sasl: KafkaSasl = { mechanism: 'SCRAM-SHA-256', username: USER, password: PASSWORD }
    const settings = kafkaSettings({ brokers, ssl: { ca }, sasl })
    const connection = await BrokerConnection.open(settings.brokers[0]!, settings, false)
    const until = Date.now() + 5_000
    while (Date.now() < until) {
      // four at a time, so that requests are under way when the session is renewed
      await Promise.all([1, 2, 3, 4].map(() => connection.call(metadataV9.api, [], false, false, false)))
    }
    expect(connection.closed).toBe(false)
    connection.close()
  })

  test.each([
    ['a wrong password', { mechanism: 'SCRAM-SHA-512', username: USER, password: 'wrong' }, true],
    ['a certificate that is not trusted', { mechanism: 'PLAIN', username: USER, password: PASSWORD }, false],
  ] as const)('%s is refused at once, and the message has no password', async (_, sasl, trusted) => {
    const startedAt = performance.now()
    const error: unknown = await openKafkaLog({ brokers, ssl: trusted ? { ca } : true, sasl }).then(
      () => null,
      (failed: unknown) => failed,
    )
    expect(error).toMatchObject({ code: 'log.refused', category: 'config', fix: expect.stringContaining('log.sasl') })
    expect(String(error)).not.toContain(sasl.password)
    expect(performance.now() - startedAt).toBeLessThan(20_000)
  })
})
