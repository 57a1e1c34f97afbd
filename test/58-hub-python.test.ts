/**
 * One cache for two programs: what huggingface_hub (Python) has downloaded is found here, and the other way round. Without it these
 * tests are skipped.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { fetchModel } from '../dist/hub/fetch-model.js'
import { sha256, useFakeHub } from './fake-hub.js'
import { pythonWith } from './python.js'
import { tinyGguf } from './tiny-gguf.js'
import { temporaryFolder } from './tiny-model.js'
import { safetensorsFile, tinyHfConfig, tinyTensors } from './tiny-source.js'

const PYTHON = pythonWith('huggingface_hub')

const folder = temporaryFolder()
const { hub, home } = useFakeHub(folder)

/** Runs a program whose last line is JSON. */
async function python(program: string): Promise<unknown> {
  const child = spawn(PYTHON!, ['-c', `import json\nfrom huggingface_hub import *\n${program}`])
  let [out, problem] = ['', '']
  child.stdout.on('data', (data) => {
    out += data
  })
  child.stderr.on('data', (data) => {
    problem += data
  })
  const [status] = await once(child, 'close')
  expect(status, problem).toBe(0)
  return JSON.parse(out.trim().split('\n').at(-1)!)
}

describe.skipIf(!PYTHON)('huggingface_hub', () => {
  const add = () => {
    hub.add('me/tiny', { 'tiny.gguf': tinyGguf() })
    hub.add('me/folder', {
      'config.json': JSON.stringify(tinyHfConfig()),
      'model.safetensors': safetensorsFile(tinyTensors()),
    })
  }

  it('finds what was downloaded here', async () => {
    add()
    const [file, whole] = [await fetchModel('hf:me/tiny'), await fetchModel('hf:me/folder')]
    process.env.HF_HUB_OFFLINE = '1'
    expect(await python(`print(json.dumps(hf_hub_download('me/tiny', 'tiny.gguf')))`)).toBe(file)
    expect(await python(`print(json.dumps(snapshot_download('me/folder')))`)).toBe(whole.replace(/\/$/, ''))
    const scanned = await python(`
info = scan_cache_dir()
print(json.dumps([len(info.repos), len(info.warnings), info.size_on_disk]))`)
    const bytes = tinyGguf().length + safetensorsFile(tinyTensors()).length + JSON.stringify(tinyHfConfig()).length
    expect(scanned).toEqual([2, 0, bytes])
  })

  it('downloads what is found here', async () => {
    add()
    const file = await python(`print(json.dumps(hf_hub_download('me/tiny', 'tiny.gguf')))`)
    const whole = await python(`
files = [hf_hub_download('me/folder', name) for name in ('config.json', 'model.safetensors')]
print(json.dumps(files))`)
    hub.reset()
    expect(await fetchModel('hf:me/tiny')).toBe(file)
    expect(join(await fetchModel('hf:me/folder'), 'config.json')).toBe((whole as string[])[0])
    expect(hub.seen).toEqual([])
  })

  it('goes on where we stopped', async () => {
    add()
    const bytes = tinyGguf()
    mkdirSync(join(home(), 'blobs'), { recursive: true })
    writeFileSync(join(home(), 'blobs', `${sha256(bytes)}.incomplete`), bytes.subarray(0, 5000))
    const file = await python(`print(json.dumps(hf_hub_download('me/tiny', 'tiny.gguf')))`)
    expect(readFileSync(file as string).equals(bytes)).toBe(true)
  })
})
