#!/usr/bin/env node
// Plain, old JavaScript: it must load on any Node to say which one is needed. In a clone it runs the TypeScript source, in the package the build.
import { existsSync } from 'node:fs'
import module from 'node:module'

/** Rows live for a moment only: a small young generation keeps the process small at no measurable cost. */
const HEAP = '--max-semi-space-size=4'

const major = Number(process.versions.node.split('.')[0])
if (major < 24) {
  console.error(
    `millrace needs Node 24 or later, and this is Node ${process.versions.node}: install Node 24, or run it as npx --package node@24 --package millrace millrace`,
  )
  process.exitCode = 2
} else if (typeof process.execve === 'function' && process.platform !== 'win32' && !process.execArgv.includes(HEAP)) {
  // the same process with the flag, which is read only when a process starts
  process.execve(process.execPath, [process.execPath, HEAP, ...process.execArgv, ...process.argv.slice(1)], process.env)
} else {
  module.enableCompileCache?.()
  const source = new URL('./millrace.ts', import.meta.url)
  import((existsSync(source) ? source : new URL('../../dist/control/cli/millrace.js', import.meta.url)).href)
}
