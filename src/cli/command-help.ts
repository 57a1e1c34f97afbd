/** What `onebit COMMAND --help` prints. */
import type { Command } from './arguments.js'

export function commandHelp(command: Command): string {
  const rows = Object.entries(command.options).map(([name, spec]) => {
    const value = spec.type === 'boolean' ? '' : ` ${spec.value ?? spec.choices?.join('|') ?? 'N'}`
    return [`${spec.short ? `-${spec.short}, ` : '    '}--${name}${value}`, spec.help] as const
  })
  const width = Math.min(34, Math.max(...rows.map(([left]) => left.length)))
  const lines = rows.flatMap(([left, help]) => {
    const indent = ' '.repeat(width + 4)
    const text = wrapped(help, 100 - width - 4).join(`\n${indent}`)
    return left.length <= width ? [`  ${left.padEnd(width)}  ${text}`] : [`  ${left}`, `${indent}${text}`]
  })
  const notes = (command.notes ?? []).map((note) => `\n${wrapped(note, 100).join('\n')}`)
  return [`Usage: onebit ${command.usage}`, '', command.summary, '', 'Options:', ...lines, ...notes].join('\n')
}

function wrapped(text: string, width: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last === undefined || last.length + word.length + 1 > width) lines.push(word)
    else lines[lines.length - 1] = `${last} ${word}`
  }
  return lines
}
