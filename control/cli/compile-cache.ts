import module from 'node:module'

/** Set in the process that began again, so that it does so once whatever becomes of the cache. */
const BEGUN_AGAIN = 'MILLRACE_BEGUN_AGAIN'
/** Node's compiler of TypeScript; there once a module was compiled rather than read from the compile cache. */
const COMPILER = 'NativeModule internal/deps/amaro/dist/index'

/**
 * For a process that goes on for long, called when its code is loaded and before it does anything: when TypeScript had to be compiled (in a clone, after a
 * change), begins the same process again from the compile cache, since the compiler would stay in memory for good. Elsewhere it does nothing.
 */
export function beginAgainIfCompiled(): void {
  const { moduleLoadList } = process as unknown as { readonly moduleLoadList?: readonly string[] }
  if (process.env[BEGUN_AGAIN] !== undefined || moduleLoadList?.includes(COMPILER) !== true) return
  if (typeof process.execve !== 'function' || process.platform === 'win32' || module.getCompileCacheDir() === undefined) return
  module.flushCompileCache()
  process.execve(process.execPath, [process.execPath, ...process.execArgv, ...process.argv.slice(1)], { ...process.env, [BEGUN_AGAIN]: '1' })
}
