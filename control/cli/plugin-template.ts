/** What `millrace new` writes: the files of templates/. docs/how-to/write-a-source.md explains those of the source. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

export type PluginFiles = Readonly<Record<string, string>>

/** Stands for the plugin's name. It is a name that a plugin may have: as they lie there, the templates are plugins that are compiled and tested. */
const NAME = 'plugin-name'
/** npm publishes no `.gitignore`, and obeys one that it finds. */
const RENAMED: Readonly<Record<string, string>> = { gitignore: '.gitignore' }

/** The files of a new plugin, by path. */
export function pluginFiles(kind: 'source' | 'sink', name: string): PluginFiles {
  const files = { 'package.json': packageJson(name), ...templateFiles('plugin'), ...templateFiles(kind) }
  return Object.fromEntries(Object.entries(files).map(([file, text]) => [RENAMED[file] ?? file, text.replaceAll(NAME, name)]))
}

function templateFiles(folder: 'plugin' | 'source' | 'sink'): PluginFiles {
  const root = path.join(packageFolder(), 'control/cli/templates', folder)
  const entries = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  const files = entries.map((entry) => path.join(entry.parentPath, entry.name)).sort()
  return Object.fromEntries(files.map((file) => [path.relative(root, file), readFileSync(file, 'utf8')]))
}

interface PackageJson {
  readonly version: string
  readonly dependencies: Readonly<Record<string, string>>
  readonly devDependencies: Readonly<Record<string, string>>
}

/** With the versions that this Millrace is made with. */
function packageJson(name: string): string {
  const ours = JSON.parse(readFileSync(path.join(packageFolder(), 'package.json'), 'utf8')) as PackageJson
  const dev = (names: readonly string[]) => Object.fromEntries(names.map((one) => [one, ours.devDependencies[one]]))
  const made = {
    name: `millrace-plugin-${name}`,
    version: '0.1.0',
    type: 'module',
    exports: './dist/index.js',
    files: ['dist'],
    // the suite waits by itself, and says then what for
    scripts: { test: 'vitest run --testTimeout 300000', start: 'millrace run mesh.yaml', build: 'tsc -p .', prepack: 'tsc -p .' },
    dependencies: { millrace: `^${ours.version}`, zod: ours.dependencies.zod },
    devDependencies: dev(['@types/node', 'fast-check', 'typescript', 'vitest']),
  }
  return `${JSON.stringify(made, null, 2)}\n`
}

/** In a clone above control/, in the package above dist/. */
function packageFolder(): string {
  const above = ['../..', '../../..'].map((up) => fileURLToPath(new URL(up, import.meta.url)))
  return above.find((folder) => existsSync(path.join(folder, 'package.json')))!
}
