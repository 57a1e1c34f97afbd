const { contextBridge, ipcRenderer } = require('electron')

contextBridge.exposeInMainWorld('model', {
  ask: (id, text) => ipcRenderer.send('model', { type: 'ask', id, text }),
  stop: (id) => ipcRenderer.send('model', { type: 'stop', id }),
  onMessage: (listener) => ipcRenderer.on('model', (_event, message) => listener(message)),
})
