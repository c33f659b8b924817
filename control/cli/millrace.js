#!/usr/bin/env node
// Plain, old JavaScript: it must load on any Node to say which one is needed. In a clone it runs the TypeScript source, in the package the build.
import { existsSync } from 'node:fs'
import module from 'node:module'

/**
 * Rows live for a moment only: a small young generation, and an old one that is collected early, keep the process small. Read when a process starts, not later;
 * your own --max-old-space-size wins.
 */
const HEAP = ['--max-semi-space-size=2', '--heap-growing-percent=25']
/**
 * One arena of glibc's allocator, and its free pages given back: the work is on one thread. Buffers have pages of their own, and leave no holes in it.
 * mimalloc, which each native codec brings along, commits what it uses, and not a huge page of 2 MB before.
 */
const ALLOCATOR = { MALLOC_ARENA_MAX: '1', MALLOC_TRIM_THRESHOLD_: '131072', MALLOC_MMAP_THRESHOLD_: '16384', MIMALLOC_EAGER_COMMIT: '0' }

const major = Number(process.versions.node.split('.')[0])
if (major < 24) {
  console.error(
    `millrace needs Node 24 or later, and this is Node ${process.versions.node}: install Node 24, or run it as npx --package node@24 --package millrace millrace`,
  )
  process.exitCode = 2
} else if (typeof process.execve === 'function' && process.platform !== 'win32' && !process.execArgv.includes(HEAP[0])) {
  // the same process, begun again with the settings
  process.execve(process.execPath, [process.execPath, ...HEAP, ...process.execArgv, ...process.argv.slice(1)], { ...ALLOCATOR, ...process.env })
} else {
  module.enableCompileCache?.()
  const source = new URL('./millrace.ts', import.meta.url)
  import((existsSync(source) ? source : new URL('../../dist/control/cli/millrace.js', import.meta.url)).href)
}
