import { createRequire } from 'node:module'

// A program of one file can load its own code and Node's; packages that lie beside it come by a `require` from there.
const { Chat, defaultModelPath, Model } = createRequire(process.execPath)('onebit-run')

async function main([path = defaultModelPath()]) {
  const model = await Model.load(path)
  const pieces = model.hasChatTemplate
    ? new Chat(model).send('Tell me a story.', { maxTokens: 40, temperature: 0 })
    : model.createSession().generate('Once upon a time', { maxTokens: 40, temperature: 0 })
  for await (const { text } of pieces) process.stdout.write(text)
  process.stdout.write('\n')
  await model.dispose()
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})
