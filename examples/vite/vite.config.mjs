// npx vite build: bundles src/main.mjs for Node, as electron-vite and the like do it for a main process. onebit-run stays a package
// of its own: it starts processes and worker threads from its files and reads its addon and the built-in model beside them.
import { defineConfig } from 'vite'

export default defineConfig({
  build: {
    ssr: 'src/main.mjs', // for Node, not for a browser
    target: 'node20',
    outDir: 'out',
    rolldownOptions: { external: ['onebit-run'] },
  },
})
