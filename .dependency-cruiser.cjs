/** Imports go one way; see ARCHITECTURE.md, "Imports". */
const stage = (name, allowed) => ({
  name: `${name}-knows-only-what-is-below`,
  severity: 'error',
  comment: `core/${name} may import ${allowed.join(', ')} only`,
  from: { path: `^core/${name}/` },
  to: { path: '^(core|connectors|control)/', pathNot: [`^core/${name}/`, ...allowed.map((a) => `^core/${a}`)] },
})
/** `millrace new` copies them: their test is the author's. */
const TEMPLATE_TESTS = '^control/cli/templates/[^/]+/index\\.test\\.ts$'
const below = ['errors\\.ts$', 'retry\\.ts$', 'node-http\\.ts$', 'event/']
module.exports = {
  forbidden: [
    stage('event', ['errors\\.ts$']),
    stage('schema', below),
    stage('log', [...below, 'schema/']),
    stage('capture', [...below, 'schema/', 'log/log\\.ts$']),
    stage('materialize', [...below, 'schema/', 'log/log\\.ts$']),
    stage('audit', [...below, 'schema/', 'log/log\\.ts$', 'capture/', 'materialize/']),
    stage('mesh', [...below, 'schema/', 'plugin\\.ts$']),
    { name: 'core-knows-no-connector', severity: 'error', from: { path: '^core/' }, to: { path: '^(connectors|control|testing)/' } },
    { name: 'contract-suites-know-no-connector', severity: 'error', from: { path: '^testing/' }, to: { path: '^(connectors|control|test)/' } },
    { name: 'only-tests-see-the-contract-suites', severity: 'error', from: { path: '^(connectors|control)/', pathNot: TEMPLATE_TESTS }, to: { path: '^testing/' } },
    {
      name: 'plugins-see-the-front-door-only',
      severity: 'error',
      from: { path: '^connectors/([^/]+)/' },
      to: { path: '^(core|connectors|control)/', pathNot: ['^connectors/$1/', '^core/plugin\\.ts$'] },
    },
    {
      name: 'templates-see-the-front-door-only',
      severity: 'error',
      from: { path: '^control/cli/templates/([^/]+)/' },
      to: { path: '^(core|connectors|control)/', pathNot: ['^control/cli/templates/$1/', '^core/plugin\\.ts$'] },
    },
    { name: 'templates-are-only-copied', severity: 'error', from: { pathNot: '^control/cli/templates/' }, to: { path: '^control/cli/templates/' } },
    {
      name: 'http-without-undici',
      severity: 'error',
      comment: 'import http from core/node-http.ts (in a connector: core/plugin.ts), which loads 14 MB less',
      from: { path: '^(core|connectors|control)/', pathNot: '\\.test\\.ts$' },
      to: { path: '^(node:)?http$', dependencyTypesNot: ['type-only'] },
    },
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } } },
    { name: 'no-vague-rooms', severity: 'error', from: {}, to: { path: '(^|/)(utils?|helpers?|common|shared|base|manager)(/|\\.ts$)', pathNot: 'node_modules' } },
  ],
  options: { tsConfig: { fileName: 'tsconfig.json' }, tsPreCompilationDeps: true, doNotFollow: { path: 'node_modules' }, exclude: { path: 'node_modules' } },
}
