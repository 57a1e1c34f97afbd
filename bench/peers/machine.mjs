import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, totalmem } from 'node:os'

/** Virtual machines often hide a processor's name (`AMD EPYC`); its family and model still say which one it is. */
function familyAndModel() {
  if (process.platform !== 'linux') return ''
  const info = readFileSync('/proc/cpuinfo', 'utf8')
  const [, family] = /^cpu family\s*: (\d+)$/m.exec(info) ?? []
  const [, model] = /^model\s*: (\d+)$/m.exec(info) ?? []
  return family && model ? ` (family ${family}, model ${model})` : ''
}

export function describeMachine() {
  return {
    cpu: `${cpus()[0]?.model.trim() ?? 'an unknown processor'}${familyAndModel()}`,
    logical_cpus: availableParallelism(),
    memory_bytes: totalmem(),
  }
}
