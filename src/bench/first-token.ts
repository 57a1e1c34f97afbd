/**
 * A program of its own: `node first-token.js '{"path": …}'` starts as `onebit run` does, with the same modules, and
 * writes one byte when the first token is there. Its parent holds the watch.
 */
import { generateOptions } from '../cli/answer-options.js'
import { loadModel } from '../cli/model-options.js'
import { firstTokenPrompt } from './first-token-prompt.js'

const { path, ...values } = JSON.parse(process.argv[2]!) as { path: string; threads: number; activations: string }
const model = await loadModel(path, values)
const session = model.createSession()
const pieces = session.generate(await firstTokenPrompt(model), generateOptions({ n: 1, temp: 0 }))
await pieces.next()
process.stdout.write('.')
await pieces.return(undefined as never)
await model.dispose()
