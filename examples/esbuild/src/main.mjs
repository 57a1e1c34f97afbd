import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { defaultModelPath, Model } from 'onebit-run'
import { wrapped } from './wrapped.mjs'

// The addon that build.mjs put beside this file. Set before the first model is loaded; processes and workers inherit it.
const addon = fileURLToPath(new URL('onebit.node', import.meta.url))
if (existsSync(addon)) process.env.ONEBIT_ADDON ??= addon

const model = await Model.load(process.argv[2] ?? defaultModelPath())
const { text } = await model.createSession().complete('Once upon a time', { maxTokens: 40, temperature: 0 })
console.log(wrapped(`Once upon a time${text}`))
await model.dispose()
