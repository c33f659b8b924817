import { createSign, generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BrokerConnection } from '../../core/log/kafka/broker-connection.ts'
import { askMetadata } from '../../core/log/kafka/cluster-requests.ts'
import { openKafkaLog } from '../../core/log/kafka/kafka-log.ts'
import type { KafkaLogOptions, KafkaSasl } from '../../core/log/kafka/kafka-options.ts'
import { kafkaSettings } from '../../core/log/kafka/kafka-settings.ts'
import { batchOf, idFrame, readCount, startOf, topicSpec } from '../../testing/log.contract.ts'
import { until } from '../../testing/source/source-run.ts'
import { Authority, opensslSkipReason } from '../services/certificates.ts'
import { freePorts } from '../services/free-ports.ts'
import { type KafkaServer, kafkajsClient, skipReason, startKafka } from '../services/kafka.ts'

const reason = skipReason() ?? opensslSkipReason()
const PASSWORD = 'only-for-this-test'
const USER = 'millrace'
const LIMITED = 'limited'
const SCRAM_JAAS = 'org.apache.kafka.common.security.scram.ScramLoginModule required;'
const PLAIN_JAAS = `org.apache.kafka.common.security.plain.PlainLoginModule required user_${USER}="${PASSWORD}" user_${LIMITED}="${PASSWORD}";`
const OAUTH_JAAS = 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required;'
const TOKEN_LIFE_S = 6

/** Signs tokens, and gives the key that the broker checks them with. */
class Issuer {
  readonly #keys = generateKeyPairSync('rsa', { modulusLength: 2048 })
  readonly jwks = JSON.stringify({ keys: [{ ...this.#keys.publicKey.export({ format: 'jwk' }), kid: 'k1', use: 'sig', alg: 'RS256' }] })

  token(lifeS: number): string {
    const now = Math.floor(Date.now() / 1000)
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const text = `${part({ alg: 'RS256', kid: 'k1' })}.${part({ sub: USER, iss: 'test', aud: 'kafka', iat: now - 300, exp: now + lifeS })}`
    return `${text}.${createSign('RSA-SHA256').update(text).sign(this.#keys.privateKey).toString('base64url')}`
  }
}

describe.skipIf(reason !== null)(`Kafka over TLS with SASL and client certificates${reason === null ? '' : ` (skipped: ${reason})`}`, () => {
  let dir: string
  let server: KafkaServer
  let authority: Authority
  let ca: string
  let brokers: string[]
  let mutual: string[]
  const issuer = new Issuer()

  beforeAll(async () => {
    dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-kafka-tls-'))
    authority = new Authority(dir, 'ca')
    ca = authority.certificate
    const [keystore, truststore, jwks] = ['broker.pem', 'trusted.pem', 'jwks.json'].map((name) => path.join(dir, name)) as [string, string, string]
    const { cert, key } = authority.issue('localhost')
    writeFileSync(keystore, `${key}${cert}`)
    writeFileSync(truststore, ca)
    writeFileSync(jwks, issuer.jwks)
    const [broker, controller, secure, mtls] = (await freePorts(4)) as [number, number, number, number]
    const listeners = `PLAINTEXT://127.0.0.1:${broker},SECURE://127.0.0.1:${secure},MTLS://127.0.0.1:${mtls}`
    server = await startKafka({
      dir: path.join(dir, 'kafka'),
      ports: { broker, controller },
      format: ['SCRAM-SHA-256', 'SCRAM-SHA-512'].flatMap((mechanism) => ['--add-scram', `${mechanism}=[name=${USER},password=${PASSWORD}]`]),
      jvm: ['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Xmx512m', `-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://${jwks}`],
      properties: {
        listeners: `${listeners},CONTROLLER://127.0.0.1:${controller}`,
        'advertised.listeners': listeners,
        'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MTLS:SSL',
        'ssl.keystore.location': keystore,
        'ssl.keystore.type': 'PEM',
        'ssl.truststore.location': truststore,
        'ssl.truststore.type': 'PEM',
        'listener.name.mtls.ssl.client.auth': 'required',
        'listener.name.secure.sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
        'listener.name.secure.plain.sasl.jaas.config': PLAIN_JAAS,
        'listener.name.secure.scram-sha-256.sasl.jaas.config': SCRAM_JAAS,
        'listener.name.secure.scram-sha-512.sasl.jaas.config': SCRAM_JAAS,
        'listener.name.secure.oauthbearer.sasl.jaas.config': OAUTH_JAAS,
        'listener.name.secure.oauthbearer.sasl.server.callback.handler.class':
          'org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler',
        'listener.name.secure.oauthbearer.sasl.oauthbearer.jwks.endpoint.url': `file://${jwks}`,
        'listener.name.secure.oauthbearer.sasl.oauthbearer.expected.audience': 'kafka',
        'listener.name.secure.oauthbearer.sasl.oauthbearer.expected.issuer': 'test',
        // sessions end after this: the client has to renew them while it works
        'listener.name.secure.connections.max.reauth.ms': '1500',
        'authorizer.class.name': 'org.apache.kafka.metadata.authorizer.StandardAuthorizer',
        'super.users': `User:ANONYMOUS;User:${USER};User:CN=${USER}`,
      },
    })
    brokers = [`127.0.0.1:${secure}`]
    mutual = [`127.0.0.1:${mtls}`]
  })
  afterAll(async () => {
    await server?.kill()
    rmSync(dir, { recursive: true, force: true })
  })

  /** Appends and reads for some seconds, in which sessions and tokens end several times. */
  async function worksFor(ms: number, name: string, options: KafkaLogOptions): Promise<void> {
    await using log = await openKafkaLog({ progressTopic: `progress-${name}`, ...options })
    const topic = `topic-${name}`
    await log.ensureTopics([topicSpec(topic)])
    await using writer = await log.openWriter(name)
    const end = Date.now() + ms
    let count = 0
    const stop = new AbortController()
    const reader = log.consume([startOf(topic)], stop.signal)[Symbol.asyncIterator]()
    while (Date.now() < end || count < 10) {
      await writer.append(batchOf([idFrame(topic, 0, [`${count}`])], { count }))
      expect((await reader.next()).value?.count).toBe(1)
      count++
    }
    stop.abort()
    await reader.return?.()
    const ids = (await readCount(log, [startOf(topic)], count)).map(({ id }) => id)
    expect(ids).toEqual(Array.from({ length: count }, (_, n) => `${n}`))
  }

  const refusal = (options: KafkaLogOptions): Promise<unknown> =>
    openKafkaLog(options).then(
      () => null,
      (error: unknown) => error,
    )

  /** A token endpoint over TLS, which wants the client's secret. */
  async function tokenEndpoint() {
    let asked = 0
    const { cert, key } = authority.issue('localhost')
    const endpoint = createServer({ cert, key }, (request, response) => {
      asked++
      const known = request.headers.authorization === `Basic ${Buffer.from(`${USER}:${PASSWORD}`).toString('base64')}`
      response.writeHead(known ? 200 : 401, { 'content-type': 'application/json' })
      response.end(JSON.stringify(known ? { access_token: issuer.token(TOKEN_LIFE_S), expires_in: TOKEN_LIFE_S } : { error: 'invalid_client' }))
    })
    await new Promise<void>((resolve) => endpoint.listen(0, '127.0.0.1', resolve))
    const oauth = { tokenUrl: `https://127.0.0.1:${(endpoint.address() as AddressInfo).port}/token`, clientId: USER, clientSecret: PASSWORD, ssl: { ca } }
    return { oauth, asked: () => asked, close: () => void endpoint.close().closeAllConnections() }
  }

  for (const mechanism of ['PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512'] as const) {
    test(`${mechanism}: appends and reads go on across session renewals`, async () => {
      await worksFor(3_000, mechanism, { brokers, ssl: { ca }, sasl: { mechanism, username: USER, password: PASSWORD } })
    })
  }

  test('OAUTHBEARER: tokens of a token endpoint are renewed before they expire', async () => {
    const { oauth, asked, close } = await tokenEndpoint()
    const from = performance.now()
    await worksFor(6_000, 'oauth', { brokers, ssl: { ca }, sasl: { mechanism: 'OAUTHBEARER', oauth } })
    expect(asked()).toBeGreaterThanOrEqual(2)
    // far fewer than sessions
    expect(asked()).toBeLessThan(4 + (performance.now() - from) / 1500)
    close()
  })

  test('OAUTHBEARER: a token of the mesh file, and one that a file brings', async () => {
    const tokenFile = path.join(dir, 'token')
    writeFileSync(tokenFile, `${issuer.token(600)}\n`)
    await worksFor(0, 'token', { brokers, ssl: { ca }, sasl: { mechanism: 'OAUTHBEARER', token: issuer.token(600) } })
    await worksFor(0, 'token-file', { brokers, ssl: { ca }, sasl: { mechanism: 'OAUTHBEARER', tokenFile } })
  })

  test('a client certificate is who we are', async () => {
    await worksFor(0, 'mtls', { brokers: mutual, ssl: { ca, ...authority.issue(USER) } })
  })

  test('one connection outlives its session, which the broker would end otherwise', async () => {
    const sasl: KafkaSasl = { mechanism: 'SCRAM-SHA-256', username: USER, password: PASSWORD }
    const settings = kafkaSettings({ brokers, ssl: { ca }, sasl })
    // one whose renewal came late, since broker or client was starved, is ended with its session: then another has to outlive its own
    await until('a connection outlives its session several times', async () => {
      const connection = await BrokerConnection.open(settings.brokers[0]!, settings, false)
      try {
        // four at a time, so that requests are under way when the session is renewed
        for (const end = Date.now() + 5_000; Date.now() < end; ) await Promise.all([1, 2, 3, 4].map(() => askMetadata(connection, [])))
        return !connection.closed
      } catch {
        return false
      } finally {
        connection.close()
      }
    })
  })

  test('a client secret that is wrong is refused by its endpoint, and one that is away is waited for', async () => {
    const { oauth, close } = await tokenEndpoint()
    const sasl = (facts: object): KafkaSasl => ({ mechanism: 'OAUTHBEARER', oauth: { ...oauth, ...facts } })
    expect(await refusal({ brokers, ssl: { ca }, sasl: sasl({ clientSecret: 'wrong-secret' }) })).toMatchObject({
      code: 'log.refused',
      message: expect.stringMatching(/HTTP 401: invalid_client/),
      fix: expect.stringContaining('log.sasl.oauth'),
    })
    close()
    expect(await refusal({ brokers, ssl: { ca }, sasl: sasl({}), unreachableMs: 200 })).toMatchObject({ code: 'log.unreachable', category: 'unavailable' })
  })

  test.each<[string, () => Partial<KafkaLogOptions>, string]>([
    ['a wrong password', () => ({ sasl: { mechanism: 'SCRAM-SHA-512', username: USER, password: 'wrong-secret' } }), 'log.sasl'],
    ['a mechanism without its token', () => ({ sasl: { mechanism: 'OAUTHBEARER', token: 'wrong-secret' } }), 'log.sasl'],
    ['an expired token', () => ({ sasl: { mechanism: 'OAUTHBEARER', token: issuer.token(-120) } }), 'log.sasl'],
    ['a token of another issuer', () => ({ sasl: { mechanism: 'OAUTHBEARER', token: new Issuer().token(600) } }), 'log.sasl'],
    ['a broker whose authority is unknown', () => ({ ssl: true, sasl: { mechanism: 'PLAIN', username: USER, password: PASSWORD } }), 'log.ssl'],
    ['no client certificate', () => ({ brokers: mutual }), 'log.ssl'],
    ['a client certificate of another authority', () => ({ brokers: mutual, ssl: { ca, ...new Authority(dir, 'other').issue(USER) } }), 'log.ssl'],
    ['a user without rights', () => ({ sasl: { mechanism: 'PLAIN', username: LIMITED, password: PASSWORD } }), 'Create, Describe'],
  ])('%s is refused at once, with the setting to correct and no secret', async (_, facts, fix) => {
    const startedAt = performance.now()
    const error = await refusal({ brokers, ssl: { ca }, ...facts() })
    expect(error).toMatchObject({ code: 'log.refused', category: 'config', fix: expect.stringContaining(fix) })
    for (const secret of ['wrong-secret', PASSWORD]) expect(String(error) + JSON.stringify(error)).not.toContain(secret)
    // half of what is waited for a broker that is away
    expect(performance.now() - startedAt).toBeLessThan(60_000)
  })

  test('the rights that the how-to names are enough', async () => {
    const admin = kafkajsClient(server.brokers).admin()
    await admin.connect()
    const { AclOperationTypes: Operation, AclResourceTypes: Resource } = kafkajs
    const rights = [
      ...[Operation.CREATE, Operation.DESCRIBE, Operation.DESCRIBE_CONFIGS, Operation.READ, Operation.WRITE].flatMap((operation) =>
        ['topic-granted', 'progress-granted'].map((resourceName) => ({ resourceType: Resource.TOPIC, resourceName, operation })),
      ),
      ...[Operation.DESCRIBE, Operation.WRITE].map((operation) => ({ resourceType: Resource.TRANSACTIONAL_ID, resourceName: 'millrace.', operation })),
    ]
    await admin.createAcls({
      acl: rights.map((right) => ({
        ...right,
        resourcePatternType: kafkajs.ResourcePatternTypes.PREFIXED,
        principal: `User:${LIMITED}`,
        host: '*',
        permissionType: kafkajs.AclPermissionTypes.ALLOW,
      })),
    })
    await admin.disconnect()
    for (const delivery of ['exactly-once', 'idempotent'] as const) {
      const options: KafkaLogOptions = { brokers, ssl: { ca }, sasl: { mechanism: 'PLAIN', username: LIMITED, password: PASSWORD }, delivery }
      let turn = 0
      // the controller answers before the broker knows of the rights
      await until('the rights are in force', () =>
        worksFor(0, `granted-${delivery}-${turn++}`, options).then(
          () => true,
          (error: { readonly code?: string }) => {
            if (error.code !== 'log.refused') throw error
            return false
          },
        ),
      )
    }
  })
})
