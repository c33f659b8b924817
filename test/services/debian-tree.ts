/** Programs out of Debian packages, unpacked into the user's cache with the libraries that they need: nothing is installed. */
import { execFile } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { cached, fetchSkipReason, onPath } from './maven.ts'

const run = promisify(execFile)
const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'
const SOURCES = ['/etc/apt/sources.list.d/debian.sources', '/etc/apt/sources.list']

export interface DebianTree {
  /** Folder that stands for `/`. */
  readonly root: string
  /** The command that runs a program of the tree with the tree's own libraries, whatever the machine's are. */
  command(program: string): readonly string[]
}

/** Why Debian packages cannot be had here, or null. */
export function debianSkipReason(): string | null {
  if (process.platform !== 'linux' || process.arch !== 'x64') return `no Debian packages for ${process.platform} ${process.arch} here`
  for (const program of ['apt-get', 'apt-cache', 'dpkg-deb']) if (!onPath(program)) return `no ${program} on PATH`
  return mirror() === null || !existsSync(KEYRING) ? 'no Debian package source is configured' : null
}

/** Why a suite's `debianFiles` of this name cannot be had here, or null. */
export async function debianFilesSkipReason(name: string, suite: string): Promise<string | null> {
  return debianSkipReason() ?? (await fetchSkipReason(name, () => askForSuite(suite)))
}

/** By apt itself, which knows of proxies. */
async function askForSuite(suite: string): Promise<void> {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'millrace-debian-'))
  try {
    const once = ['Acquire::Retries=0', 'Acquire::http::Timeout=20', 'Acquire::https::Timeout=20', 'APT::Sandbox::User=']
    await run('/usr/lib/apt/apt-helper', [
      ...once.flatMap((option) => ['-o', option]),
      'download-file',
      `${mirror()}/dists/${suite}/InRelease`,
      path.join(dir, 'InRelease'),
    ])
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

/** The archive that the machine itself takes its packages from. */
function mirror(): string | null {
  for (const file of SOURCES) {
    if (!existsSync(file)) continue
    const uri = /^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s*)?)(https?:\/\/\S+)/m.exec(readFileSync(file, 'utf8'))
    if (uri !== null) return uri[1]!
  }
  return null
}

/** `packages` of a Debian suite with all that they depend on; resolved once per machine. */
export async function debianTree(name: string, suite: string, packages: readonly string[]): Promise<DebianTree> {
  const dir = await cached(name, (folder) => unpack(folder, suite, packages))
  const root = path.join(dir, 'root')
  const libraries = path.join(root, 'usr/lib/x86_64-linux-gnu')
  const loader = [path.join(libraries, 'ld-linux-x86-64.so.2'), path.join(root, 'lib/x86_64-linux-gnu/ld-linux-x86-64.so.2')].find((file) => existsSync(file))!
  return {
    root,
    command(program) {
      const file = ['usr/sbin', 'usr/bin'].map((bin) => path.join(root, bin, program)).find((candidate) => existsSync(candidate))
      if (file === undefined) throw new Error(`no ${program} in ${root}`)
      return [loader, '--argv0', program, '--library-path', `${libraries}:${path.join(root, 'lib/x86_64-linux-gnu')}`, file]
    },
  }
}

/** Folder that stands for `/`, with what is in `packages` of a Debian suite alone. */
export async function debianFiles(name: string, suite: string, packages: readonly string[]): Promise<string> {
  return path.join(await cached(name, (folder) => unpack(folder, suite, packages, false)), 'root')
}

async function unpack(dir: string, suite: string, packages: readonly string[], withDependencies = true): Promise<void> {
  const apt = path.join(dir, 'apt')
  const debs = path.join(dir, 'debs')
  for (const folder of ['lists/partial', 'cache/archives/partial', 'parts']) mkdirSync(path.join(apt, folder), { recursive: true })
  mkdirSync(debs)
  const source = path.join(apt, 'sources.list')
  writeFileSync(source, `deb [signed-by=${KEYRING}] ${mirror()} ${suite} main\n`)
  const options = Object.entries({
    'Acquire::Retries': '5',
    'Dir::Etc::sourcelist': source,
    'Dir::Etc::sourceparts': path.join(apt, 'parts'),
    'Dir::Etc::preferencesparts': path.join(apt, 'parts'),
    'Dir::State::lists': path.join(apt, 'lists'),
    'Dir::Cache': path.join(apt, 'cache'),
    // the system's status would say that some libraries are there already
    'Dir::State::status': '/dev/null',
  }).flatMap(([key, value]) => ['-o', `${key}=${value}`])
  await run('apt-get', ['update', ...options])
  const names = new Set(withDependencies ? await dependencies(packages, options) : packages)
  await run('apt-get', ['download', ...options, ...names], { cwd: debs, maxBuffer: 1 << 26 })
  const root = path.join(dir, 'root')
  for (const deb of readdirSync(debs)) await run('dpkg-deb', ['-x', path.join(debs, deb), root])
  rmSync(debs, { recursive: true })
  rmSync(apt, { recursive: true })
}

async function dependencies(packages: readonly string[], options: readonly string[]): Promise<readonly string[]> {
  const exclude = ['recommends', 'suggests', 'conflicts', 'breaks', 'replaces', 'enhances'].map((kind) => `--no-${kind}`)
  const { stdout } = await run('apt-cache', ['depends', '--recurse', ...exclude, ...packages, ...options], { maxBuffer: 1 << 26 })
  return stdout.split('\n').filter((line) => /^[a-z]/.test(line) && !/perl|debconf|dpkg|:i386|:any/.test(line))
}
