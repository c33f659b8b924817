/** Java services by Maven coordinates: jars are resolved once by `mvn`, then kept in the user's cache. Versions are pinned by the callers. */
import { execFile, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'

const run = promisify(execFile)
const DEPENDENCY_PLUGIN = 'org.apache.maven.plugins:maven-dependency-plugin:3.6.1'
/** A resolver that died leaves its lock; no download takes longer than this. */
const LOCK_TIMEOUT_MS = 600_000
/** Downloads fail now and then. */
const TRIES = 3

export function cacheDir(): string {
  return path.join(process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'), 'millrace')
}

/** Path of a `java` of at least this feature version (17, 21 …), and at most the other, the oldest that fits; null when there is none. */
export function findJava(atLeast: number, atMost = Number.POSITIVE_INFINITY): string | null {
  const homes = [process.env.JAVA_HOME, process.env.JAVA17_HOME, process.env.JAVA21_HOME].filter((home) => home !== undefined && home !== '')
  const installed = existsSync('/usr/lib/jvm') ? readdirSync('/usr/lib/jvm').map((name) => path.join('/usr/lib/jvm', name)) : []
  const onPath = (process.env.PATH ?? '').split(path.delimiter).map((dir) => path.join(dir, 'java'))
  const candidates = [...homes, ...installed].map((home) => path.join(home as string, 'bin', 'java')).concat(onPath)
  let best: { java: string; version: number } | null = null
  for (const java of new Set(candidates)) {
    if (!existsSync(java)) continue
    const version = featureVersion(java)
    if (version >= atLeast && version <= atMost && (best === null || version < best.version)) best = { java, version }
  }
  return best?.java ?? null
}

function featureVersion(java: string): number {
  const release = path.join(path.dirname(path.dirname(java)), 'release')
  if (existsSync(release)) {
    const found = /JAVA_VERSION="(\d+)/.exec(readFileSync(release, 'utf8'))
    if (found !== null) return Number(found[1])
  }
  try {
    const text = execFileSync(java, ['--version'], { stdio: ['ignore', 'pipe', 'ignore'] }).toString()
    return Number(/^\S+ (\d+)/.exec(text)?.[1] ?? 0)
  } catch {
    return 0
  }
}

/** Why Java services cannot run here, or null. */
export function javaSkipReason(atLeast: number): string | null {
  if (findJava(atLeast) === null) return `no JDK ${atLeast} or later found by JAVA_HOME, JAVA17_HOME, PATH or /usr/lib/jvm`
  return mavenSkipReason()
}

/** Why nothing can be fetched by Maven here, or null. */
export function mavenSkipReason(): string | null {
  return onPath('mvn') ? null : 'no mvn on PATH'
}

export function onPath(program: string): boolean {
  return (process.env.PATH ?? '').split(path.delimiter).some((dir) => existsSync(path.join(dir, program)))
}

export interface Coordinate {
  readonly group: string
  readonly artifact: string
  readonly version: string
  readonly classifier?: string
}

/** Folder with the jars of `coordinates` and their runtime dependencies. */
export function mavenJars(name: string, coordinates: readonly Coordinate[]): Promise<string> {
  return cached(name, async (dir) => {
    const dependencies = coordinates
      .map(
        (c) =>
          `<dependency><groupId>${c.group}</groupId><artifactId>${c.artifact}</artifactId><version>${c.version}</version>${c.classifier === undefined ? '' : `<classifier>${c.classifier}</classifier>`}</dependency>`,
      )
      .join('\n')
    writeFileSync(
      path.join(dir, 'pom.xml'),
      `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>millrace</groupId><artifactId>jars</artifactId><version>1</version><dependencies>${dependencies}</dependencies></project>\n`,
    )
    await run('mvn', ['-q', '-B', '-f', 'pom.xml', `${DEPENDENCY_PLUGIN}:copy-dependencies`, '-DincludeScope=runtime', `-DoutputDirectory=${dir}`], {
      cwd: dir,
    })
  })
}

/** Folder into which the archive `group:artifact:version:tar.gz:classifier` is unpacked. */
export function mavenArchive(name: string, coordinate: Coordinate, classifier: string): Promise<string> {
  return cached(name, async (dir) => {
    const full = `${coordinate.group}:${coordinate.artifact}:${coordinate.version}:tar.gz:${classifier}`
    await run('mvn', ['-q', '-B', `${DEPENDENCY_PLUGIN}:copy`, `-Dartifact=${full}`, `-DoutputDirectory=${dir}`, '-Dmdep.useBaseVersion=true'], { cwd: dir })
    const archive = path.join(dir, `${coordinate.artifact}-${coordinate.version}-${classifier}.tar.gz`)
    await run('tar', ['xzf', archive, '-C', dir])
    rmSync(archive)
  })
}

/** Folder into which the `.txz` inside the jar `group:artifact:version` is unpacked; needs `xz`. */
export function mavenPackedTree(name: string, { group, artifact, version }: Coordinate): Promise<string> {
  return cached(name, async (dir) => {
    const jar = path.join(dir, 'jar')
    mkdirSync(jar)
    await run('mvn', ['-q', '-B', `${DEPENDENCY_PLUGIN}:unpack`, `-Dartifact=${group}:${artifact}:${version}`, `-DoutputDirectory=${jar}`], { cwd: jar })
    const tree = readdirSync(jar).find((file) => file.endsWith('.txz'))
    if (tree === undefined) throw new Error(`no .txz in ${artifact} ${version}`)
    await run('tar', ['xJf', path.join(jar, tree), '-C', dir])
    rmSync(jar, { recursive: true })
  })
}

/** `fill` runs in one process of the machine only; the folder appears whole or not at all. */
export async function cached(name: string, fill: (dir: string) => Promise<void>): Promise<string> {
  const target = path.join(cacheDir(), name)
  const lock = `${target}.lock`
  mkdirSync(cacheDir(), { recursive: true })
  const deadline = Date.now() + LOCK_TIMEOUT_MS
  while (!existsSync(target)) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' })
    } catch {
      if (Date.now() > deadline || !holderLives(lock)) rmSync(lock, { force: true })
      await delay(100)
      continue
    }
    try {
      // made just before the lock was free
      if (existsSync(target)) break
      const dir = `${target}.new`
      await tried(async () => {
        rmSync(dir, { recursive: true, force: true })
        mkdirSync(dir)
        await fill(dir)
      })
      renameSync(dir, target)
    } finally {
      rmSync(lock, { force: true })
    }
  }
  return target
}

/** Why what `cached` has under this name cannot be had here, or null: it was not fetched yet, and `ask`, which asks who has it once, fails. */
export async function fetchSkipReason(name: string, ask: () => Promise<unknown>): Promise<string | null> {
  // where skips are forbidden the fetch itself, which tries again, is to say what failed
  if (process.env.MILLRACE_FORBID_SKIP || existsSync(path.join(cacheDir(), name))) return null
  try {
    await ask()
    return null
  } catch (error) {
    const { stderr, message } = error as { readonly stderr?: string; readonly message: string }
    return `${name} is not in the cache and cannot be fetched: ${(stderr || message).trim().split('\n')[0]}`
  }
}

/** Does it again when it fails, a few times. @throws the last failure */
export async function tried(download: () => Promise<unknown>): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await download()
      return
    } catch (error) {
      if (attempt === TRIES) throw error
      await delay(5000)
    }
  }
}

function holderLives(lock: string): boolean {
  try {
    const pid = Number(readFileSync(lock, 'utf8'))
    // an empty file is a lock that is just being written
    if (pid > 0) process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'
  }
}
