import { expect, test } from 'vitest'
import { mysqlError, ServerError, streamError } from '../../../../connectors/mysql/mysql-error.ts'

const failure = (message: string, more: object) => Object.assign(new Error(message), more)

test.each([
  ['a certificate of another authority', failure('unable to verify the first certificate', { code: 'HANDSHAKE_SSL_ERROR' }), 'source.forbidden'],
  ['a server without TLS', failure('Server does not support secure connection', { code: 'HANDSHAKE_NO_SSL_SUPPORT' }), 'source.forbidden'],
  ['a handshake that is cut', failure('read ECONNRESET', { code: 'HANDSHAKE_SSL_ERROR', errno: -104, syscall: 'read' }), 'source.unreachable'],
  [
    'a handshake that is ended',
    failure('Client network socket disconnected before secure TLS connection was established', { code: 'HANDSHAKE_SSL_ERROR' }),
    'source.unreachable',
  ],
  [
    'a login that is not known',
    failure('Server requests authentication using unknown plugin parsec', { code: 'AUTH_SWITCH_PLUGIN_ERROR' }),
    'source.forbidden',
  ],
  ['no server', failure('connect ECONNREFUSED', { code: 'ECONNREFUSED', errno: -111, syscall: 'connect' }), 'source.unreachable'],
  ['a wrong password', failure('Access denied', { code: 'ER_ACCESS_DENIED_ERROR', errno: 1045 }), 'source.forbidden'],
])('%s', (_, error, code) => {
  expect(mysqlError(error, 'to connect')).toMatchObject({ code })
})

test.each([
  ['MySQL', 1236, 'A replica with the same server_uuid/server_id as this replica has connected to the source'],
  ['MariaDB', 4052, 'A slave with the same server_uuid/server_id as this slave has connected to the master'],
])('a second process of the node on %s is a conflict, whatever its number', (_, errno, message) => {
  expect(streamError(new ServerError(errno, 'HY000', message), 'shop')).toMatchObject({ code: 'source.in_use', category: 'conflict' })
})
