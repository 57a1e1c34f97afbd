/**
 * The process that renders chat templates. A template comes with the model file and is a program: here it can be
 * stopped and sees nothing but its own variables. A thread would not do: an allocation beyond its heap's limit, and
 * `range(1000000000)` is one, ends the whole process that the thread belongs to.
 */
import { Template } from '@huggingface/jinja'

export type TemplateRequest = { template: string } | { variables: Record<string, unknown> }

let source = ''
let template: Template | undefined

function render(variables: Record<string, unknown>): string {
  template ??= new Template(source)
  const text: unknown = template.render(variables)
  if (typeof text !== 'string') throw new Error('it gave no text')
  return text
}

process.on('message', (request: TemplateRequest) => {
  if ('template' in request) {
    source = request.template
    process.send?.({ ready: true })
    return
  }
  try {
    process.send?.({ result: render(request.variables) })
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error)
    const message = `The chat template failed: ${problem.slice(0, 500)}`
    process.send?.({ error: { code: 'ERR_TEMPLATE', message } })
  }
})
process.on('disconnect', () => process.exit())
// Ctrl-C reaches every process of the terminal; what it means is for the parent to say.
process.on('SIGINT', () => {})
