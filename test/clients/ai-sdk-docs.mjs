// The example of docs/ai-sdk.md, as somebody has it who installed the package.
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { Checks } from './checks.mjs'
import { writeChatModel } from './models.mjs'
import { temporaryFolder } from './served.mjs'

const at = (path) => fileURLToPath(new URL(path, import.meta.url))
const checks = new Checks('docs/ai-sdk.md')
const folder = temporaryFolder()
await writeChatModel(folder.file('smol.obt'))
mkdirSync(folder.file('node_modules'))
symlinkSync(at('../..'), folder.file('node_modules/onebit-run'), 'junction')
for (const name of ['ai', 'zod'])
  symlinkSync(at(`node_modules/${name}`), folder.file(`node_modules/${name}`), 'junction')

await checks.check('its example runs', async () => {
  const [, example] = /```js\n([\s\S]*?)```/.exec(readFileSync(at('../../docs/ai-sdk.md'), 'utf8'))
  writeFileSync(folder.file('example.mjs'), example)
  const ended = spawnSync(process.execPath, ['example.mjs'], {
    cwd: folder.file(''),
    encoding: 'utf8',
    timeout: 100_000,
    env: { ...process.env, NODE_OPTIONS: '' },
  })
  assert.equal(ended.status, 0, ended.stderr)
  const lines = ended.stdout.trimEnd().split('\n')
  assert.match(lines.at(-1), /^It is sunny in (Paris|Rome)\.$/)
  assert.ok(/(Paris|Rome)$/.test(lines.at(-2)), lines.at(-2))
})

folder.remove()
checks.finish()
