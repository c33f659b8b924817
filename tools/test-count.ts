import type { Reporter, TestModule } from 'vitest/node'

/** Ends the run with `N passed, N failed` alone on a line, which CI reads. Skips count as failures where CI forbids them. */
export default class TestCount implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], errors: readonly unknown[]): void {
    let passed = 0
    let failed = errors.length
    const skips: string[] = []
    for (const module of modules) {
      if (module.errors().length > 0) failed++
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        if (state === 'passed') passed++
        else if (state === 'failed') failed++
        else skips.push(`${module.moduleId}: ${test.fullName}`)
      }
    }
    let skipped = skips.length
    if (skipped > 0 && process.env.MILLRACE_FORBID_SKIP === '1') {
      console.log(`${skipped} skipped, which this run forbids:\n${skips.join('\n')}`)
      failed += skipped
      skipped = 0
      process.exitCode = 1
    }
    console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
  }
}
