// Lets a plain Node script use the test's own TypeScript (Node 20 cannot strip types): through the server that vitest
// runs its tests with, which is a development dependency already.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createViteServer } from 'vitest/node'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** The module at `path`, relative to the project's root. */
export async function importTypeScript(path) {
  const server = await createViteServer({
    root,
    configFile: false,
    logLevel: 'error',
    appType: 'custom',
    server: { middlewareMode: true, ws: false, watch: null },
    optimizeDeps: { noDiscovery: true },
  })
  try {
    return await server.ssrLoadModule(`/${path}`)
  } finally {
    await server.close()
  }
}
