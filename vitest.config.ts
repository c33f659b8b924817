import path from 'node:path'
import { configDefaults, defineConfig } from 'vitest/config'

const base = {
  environment: 'node',
  pool: 'forks' as const,
  testTimeout: 300_000,
  hookTimeout: 900_000,
  globalSetup: ['test/services/global-setup.ts'],
  setupFiles: ['test/fixed-seed.ts'],
}

/** What the templates of plugins import as their authors do. */
const alias = [
  { find: /^millrace$/, replacement: path.resolve('core/plugin.ts') },
  { find: /^millrace\/testing$/, replacement: path.resolve('testing/index.ts') },
]
const unit = ['test/unit/**/*.test.ts', 'test/golden/**/*.test.ts', 'control/cli/templates/*/index.test.ts']
/** Unit tests that change what all of a process share: each has a process of its own (`test/unit/shared-process.ts`). */
const isolated = 'test/unit/**/*.isolated.test.ts'
const shared = { isolate: false, exclude: [...configDefaults.exclude, isolated], setupFiles: [...base.setupFiles, 'test/unit/shared-process.ts'] }

/** Fast ones first: unit tests need no service, and most share two processes; the others start what they need and share it. */
export default defineConfig({
  test: {
    fileParallelism: true,
    maxWorkers: 2,
    reporters: ['default', './tools/test-count.ts'],
    projects: [
      { test: { ...base, name: 'unit', include: unit, alias, ...shared } },
      { test: { ...base, name: 'unit-isolated', include: [isolated], alias } },
      { test: { ...base, name: 'integration', include: ['test/integration/**/*.test.ts', 'test/mesh/**/*.test.ts'], testTimeout: 600_000 } },
      { test: { ...base, name: 'fault', include: ['test/fault/**/*.test.ts'], testTimeout: 1_200_000 } },
    ],
  },
})
