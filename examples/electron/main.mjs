// The main process: a window, and the process that computes. It loads no addon itself.
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { app, BrowserWindow, ipcMain, utilityProcess } from 'electron'

const here = dirname(fileURLToPath(import.meta.url))

function startHost(window) {
  const host = utilityProcess.fork(join(here, 'host.mjs'), [], { serviceName: 'models' })
  const tell = (message) => {
    if (!window.isDestroyed()) window.webContents.send('model', message)
  }
  host.on('message', tell)
  // A crash or a kill for want of memory takes the answer along, not the application.
  host.on('exit', (code) => tell({ type: 'error', code: 'HOST', message: `The process of the model ended (${code}).` }))
  return host
}

await app.whenReady()
const window = new BrowserWindow({
  width: 720,
  height: 560,
  webPreferences: { preload: join(here, 'preload.cjs'), contextIsolation: true, sandbox: true },
})
const host = startHost(window)
// Only what a window may ask for: the path of a model comes from a dialog of the main process, never from the page.
ipcMain.on('model', (_event, { type, id, text }) => {
  if (type === 'ask' && typeof text === 'string') host.postMessage({ type, id, text, options: { maxTokens: 200 } })
  if (type === 'stop') host.postMessage({ type, id })
})
app.on('window-all-closed', () => app.quit())
await window.loadFile(join(here, 'index.html'))
host.postMessage({ type: 'load', id: 0 })
