import { defaultModelPath, Model } from 'onebit-run'
import { wrapped } from './wrapped.mjs'

const model = await Model.load(process.argv[2] ?? defaultModelPath())
const { text } = await model.createSession().complete('Once upon a time', { maxTokens: 40, temperature: 0 })
console.log(wrapped(`Once upon a time${text}`))
await model.dispose()
