// npx webpack: bundles src/main.mjs for Node. onebit-run stays a package of its own: webpack would make absolute paths of this machine
// of its `import.meta.url`, by which it finds its addon, its workers and the built-in model.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const here = dirname(fileURLToPath(import.meta.url))

export default {
  mode: 'production',
  target: 'node20',
  entry: join(here, 'src', 'main.mjs'),
  experiments: { outputModule: true },
  externalsType: 'module',
  externals: { 'onebit-run': 'onebit-run' },
  output: { path: join(here, 'out'), filename: 'main.mjs', module: true, chunkFormat: 'module' },
}
