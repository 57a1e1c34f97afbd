// What the utility process runs.
import { serveModels } from './model-host.mjs'

serveModels(process.parentPort)
