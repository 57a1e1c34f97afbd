/** The examples for applications: bundles run, and the host of models holds what an application needs from it. */
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { MessageChannel, type MessagePort } from 'node:worker_threads'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { defaultModelPath } from '../dist/index.js'
import { PREBUILT, systemName, thisSystem } from '../dist/native/find-addon.js'
import { nativePath } from '../dist/native/native-path.js'
import { PROJECT } from './data.js'
import { temporaryFolder, writeTinyModel } from './tiny-model.js'

const folder = temporaryFolder()
const system = systemName(thisSystem())
const built = join(PROJECT, 'build', 'Release', 'onebit.node')
afterAll(() => folder.remove())

/** A project with the package and a bundler installed; the package has this clone's build as the addon of this system. */
function consumer(name: string): string {
  const home = folder.path(name)
  const installed = join(home, 'node_modules', 'onebit-run')
  mkdirSync(installed, { recursive: true })
  for (const part of ['package.json', 'dist', 'models'])
    cpSync(join(PROJECT, part), join(installed, part), { recursive: true })
  const addon = join(installed, 'prebuilds', PREBUILT[system]!)
  mkdirSync(dirname(addon), { recursive: true })
  cpSync(built, addon)
  for (const dependency of [
    'esbuild',
    'postject',
    'vite',
    'webpack',
    '@huggingface',
    '@mlc-ai',
    'hyparquet',
    'marked',
    'dompurify',
    'seek-bzip',
  ]) {
    const target = join(home, 'node_modules', dependency)
    symlinkSync(join(PROJECT, 'node_modules', dependency), target, 'junction')
  }
  cpSync(join(PROJECT, 'examples', name), home, { recursive: true })
  return home
}

function node(argv: string[], cwd: string, env: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, ...env },
  })
  return { status, stdout, stderr }
}

const expectedStory = /^Once upon a time[\s\S]{60,}$/

describe.skipIf(!existsSync(built))('a bundle', () => {
  it('by esbuild runs, with the addon of one system beside it', () => {
    const home = consumer('esbuild')
    expect(node(['build.mjs'], home, { TARGET: system })).toMatchObject({ status: 0, stderr: '' })
    expect(readFileSync(join(home, 'out', 'main.mjs'), 'utf8')).not.toContain('./wrapped.mjs')
    const story = node(['out/main.mjs'], home)
    expect(story).toMatchObject({ status: 0, stderr: '', stdout: expect.stringMatching(expectedStory) })
    // The addon beside it is the one that is loaded.
    writeFileSync(join(home, 'out', 'onebit.node'), 'damaged')
    expect(node(['out/main.mjs'], home)).toMatchObject({ status: 1, stderr: expect.stringContaining('ERR_ADDON') })
  })

  it('by vite runs', () => {
    const home = consumer('vite')
    expect(node(['node_modules/vite/bin/vite.js', 'build', '--logLevel', 'error'], home)).toMatchObject({ status: 0 })
    const story = node(['out/main.js'], home)
    expect(story).toMatchObject({ status: 0, stderr: '', stdout: expect.stringMatching(expectedStory) })
  })

  it('by webpack runs', () => {
    const home = consumer('webpack')
    const code = `import webpack from 'webpack'
      import config from './webpack.config.mjs'
      webpack(config, (error, stats) => {
        if (error || stats.hasErrors()) throw error ?? new Error(stats.toString())
      })`
    writeFileSync(join(home, 'build.mjs'), code)
    expect(node(['build.mjs'], home)).toMatchObject({ status: 0, stderr: '' })
    const story = node(['out/main.mjs'], home)
    expect(story).toMatchObject({ status: 0, stderr: '', stdout: expect.stringMatching(expectedStory) })
  })
})

describe.skipIf(!existsSync(built))('a program of one file', () => {
  it('runs without Node, and renders the template of a chat without starting itself once more', {
    timeout: 120_000,
  }, async () => {
    const home = consumer('single-file')
    expect(node(['build.mjs'], home)).toMatchObject({ status: 0 }) // what injects the program warns of Node's own sections
    const program = join(home, 'out', process.platform === 'win32' ? 'story.exe' : 'story')
    const run = (argv: string[]) =>
      spawnSync(program, argv, { cwd: folder.path(''), encoding: 'utf8', timeout: 60_000 })
    expect(run([])).toMatchObject({ status: 0, stderr: '', stdout: expect.stringMatching(/^[\s\S]{60,}$/) })
    const chatting = folder.path('chatting.obt')
    await writeTinyModel(chatting)
    expect(run([chatting])).toMatchObject({ status: 0, stderr: '' })
    // Its addon is the one beside it.
    writeFileSync(join(home, 'out', 'node_modules', 'onebit-run', 'prebuilds', PREBUILT[system]!), 'damaged')
    expect(run([])).toMatchObject({ status: 1, stderr: expect.stringContaining('addon') })
  })
})

interface Told {
  type: string
  id?: number
  text?: string
  why?: string
  code?: string
  name?: string
}

describe('the host of models', () => {
  let application: MessagePort
  let host: MessagePort
  let told: Told[]
  let wake: () => void = () => {}
  let serveModels: (port: unknown) => void

  beforeAll(async () => {
    // The example imports the package by its name.
    const home = consumer('electron')
    ;({ serveModels } = await import(pathToFileURL(join(home, 'model-host.mjs')).href))
  })

  function start() {
    const channel = new MessageChannel()
    application = channel.port1
    host = channel.port2
    told = []
    application.on('message', (message: Told) => {
      told.push(message)
      wake()
    })
    serveModels(host)
  }
  afterEach(() => application.close())

  /** Waits for the message; those before it stay in `told`. */
  async function until(wanted: (message: Told) => boolean): Promise<Told> {
    for (;;) {
      const found = told.find(wanted)
      if (found) return found
      await new Promise<void>((resolve) => {
        wake = resolve
      })
    }
  }
  const ended = (id: number) => until((one) => one.id === id && (one.type === 'answered' || one.type === 'error'))
  const LONG = { maxTokens: 400, temperature: 0 }

  it('answers in pieces', async () => {
    start()
    application.postMessage({ type: 'load', id: 1 })
    application.postMessage({ type: 'ask', id: 2, text: 'too early' })
    expect(await ended(2)).toMatchObject({ type: 'error', code: 'NO_MODEL' })
    expect(await until(({ type }) => type === 'loaded')).toMatchObject({ id: 1, name: 'stories-5M.obt' })
    application.postMessage({ type: 'ask', id: 3, text: 'Once upon a time', options: { maxTokens: 20 } })
    expect(await ended(3)).toMatchObject({ why: 'end' })
    expect(told.filter(({ type }) => type === 'piece').length).toBeGreaterThan(3)
  })

  it('stops, and answers again', async () => {
    start()
    application.postMessage({ type: 'load', id: 1 })
    await until(({ type }) => type === 'loaded')
    application.postMessage({ type: 'ask', id: 2, text: 'Once upon a time', options: LONG })
    await until(({ type }) => type === 'piece')
    application.postMessage({ type: 'ask', id: 3, text: 'Meanwhile' })
    expect(await ended(3)).toMatchObject({ type: 'error', code: 'BUSY' })
    application.postMessage({ type: 'stop', id: 2 })
    expect(await ended(2)).toMatchObject({ why: 'abort' })
    application.postMessage({ type: 'ask', id: 4, text: 'Once upon a time', options: { maxTokens: 5 } })
    expect(await ended(4)).toMatchObject({ why: 'end' })
  })

  it('takes another model, or none, in the middle of an answer', async () => {
    start()
    application.postMessage({ type: 'load', id: 1 })
    await until(({ type }) => type === 'loaded')
    application.postMessage({ type: 'ask', id: 2, text: 'Once upon a time', options: LONG })
    await until(({ type }) => type === 'piece')
    application.postMessage({ type: 'load', id: 3, path: defaultModelPath() })
    application.postMessage({ type: 'unload', id: 4 })
    expect(await ended(2)).toMatchObject({ why: 'abort' })
    await until(({ type, id }) => type === 'unloaded' && id === 4)
    expect(told.filter(({ type }) => type === 'loaded').map(({ id }) => id)).toEqual([1, 3])
    application.postMessage({ type: 'ask', id: 5, text: 'Nobody is there' })
    expect(await ended(5)).toMatchObject({ code: 'NO_MODEL' })
  })

  it('keeps to a limit on memory, and tells what is wrong with a model', async () => {
    start()
    application.postMessage({ type: 'load', id: 1, memoryLimit: 1_000_000 })
    expect(await ended(1)).toMatchObject({ code: 'ERR_MEMORY_LIMIT' })
    application.postMessage({ type: 'load', id: 2, path: folder.path('nowhere.obt') })
    expect(await ended(2)).toMatchObject({ code: 'ERR_FILE_NOT_FOUND' })
    application.postMessage({ type: 'dance', id: 3 })
    expect(await ended(3)).toMatchObject({ code: 'MESSAGE' })
    application.postMessage({ type: 'load', id: 4 })
    expect(await until(({ type }) => type === 'loaded')).toMatchObject({ id: 4 })
  })
})

describe('paths for native code', () => {
  it('lead out of an asar archive, where the file lies unpacked', () => {
    const packed = folder.path(join('app.asar', 'models', 'model.obt'))
    expect(nativePath(packed, true)).toBe(packed)
    const unpacked = folder.path(join('app.asar.unpacked', 'models', 'model.obt'))
    mkdirSync(dirname(unpacked), { recursive: true })
    writeFileSync(unpacked, '')
    expect(nativePath(packed, false)).toBe(packed)
    expect(nativePath(packed, true)).toBe(unpacked)
  })
})
