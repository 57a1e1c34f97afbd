import type { AnswerPart } from './parts.js'

/** The parts of an answer put together. */
export class WholeAnswer {
  text = ''
  reasoning = ''
  readonly calls: { id: string; name: string; arguments: string }[] = []

  add(part: AnswerPart): void {
    if (part.type === 'text') this.text += part.text
    else if (part.type === 'reasoning') this.reasoning += part.text
    else if (part.type === 'call-end') this.calls.push({ id: part.id, name: part.name, arguments: part.arguments })
  }

  message() {
    const calls = this.calls.map(({ id, name, arguments: args }) => ({
      id,
      type: 'function',
      function: { name, arguments: args },
    }))
    return {
      role: 'assistant',
      content: this.text === '' && calls.length > 0 ? null : this.text,
      ...(this.reasoning === '' ? {} : { reasoning_content: this.reasoning }),
      ...(calls.length > 0 ? { tool_calls: calls } : {}),
    }
  }
}
