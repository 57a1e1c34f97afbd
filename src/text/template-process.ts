/**
 * The process that renders chat templates. A template comes with the model file and is a program: here it can be
 * stopped and sees nothing but its own variables. A thread is second best, for programs that have no Node to start a process
 * with: an allocation beyond its heap's limit may end the whole process that the thread belongs to.
 */
import { parentPort } from 'node:worker_threads'
import { Template, templateProblem } from './jinja/template.js'
import { FOREIGN, type Origin, TEMPLATE, TRUSTED } from './jinja/text.js'
import { Dict, fromData, List, type Value } from './jinja/values.js'
import type { RemoteAnswer } from './remote-calls.js'

export type TemplateRequest = { template: string } | ChatVariables

export interface ChatVariables {
  messages: readonly Record<string, unknown>[]
  /** what callers give beside the messages */
  given: Record<string, unknown>
  /** what came with the template, such as the texts of special tokens */
  own: Record<string, unknown>
  addGenerationPrompt: boolean
}

/** A piece of rendered text and where its characters come from. */
export interface RenderedRun {
  text: string
  origin: Origin
}

/** Roles that templates name tokens after (`<|user|>`): they are words of the format, not contents. */
const ROLES = new Set(['system', 'user', 'assistant', 'tool', 'developer', 'ipython', 'function'])
/** Who writes a message with such a role: whoever made the application, or the model itself. */
const TRUSTED_ROLES = new Set(['system', 'developer', 'assistant'])

let source = ''
let template: Template | undefined

/** transformers leaves fields out that are None: many templates print them or fail. */
function messageValue(message: Record<string, unknown>): Value {
  const { role } = message
  const origin = typeof role === 'string' && TRUSTED_ROLES.has(role) ? TRUSTED : FOREIGN
  const present = Object.entries(message).filter(([, value]) => value !== null && value !== undefined)
  return new Dict(
    present.map(([name, value]): [Value, Value] => {
      const isWord = name === 'role' && typeof value === 'string' && ROLES.has(value)
      return [fromData(name, origin), fromData(value, isWord ? TEMPLATE : origin)]
    }),
  )
}

function render({ messages, given, own, addGenerationPrompt }: ChatVariables): RenderedRun[] {
  template ??= new Template(source)
  const variables = new Map<string, Value>()
  // transformers passes these two whether there are any or not.
  for (const name of ['tools', 'documents']) variables.set(name, null)
  for (const [name, value] of Object.entries(own)) variables.set(name, fromData(value, TEMPLATE))
  for (const [name, value] of Object.entries(given)) variables.set(name, fromData(value, FOREIGN))
  variables.set('add_generation_prompt', addGenerationPrompt)
  variables.set('messages', new List(messages.map(messageValue)))
  return template.render(variables).runs()
}

const answer = (message: RemoteAnswer<RenderedRun[]>) =>
  parentPort ? parentPort.postMessage(message) : process.send?.(message)

function onRequest(request: TemplateRequest): void {
  if ('template' in request) {
    source = request.template
    answer({ ready: true })
    return
  }
  try {
    answer({ result: render(request) })
  } catch (error) {
    const message = `The chat template failed: ${templateProblem(error).slice(0, 500)}`
    answer({ error: { code: 'ERR_TEMPLATE', message } })
  }
}

if (parentPort) {
  parentPort.on('message', onRequest)
} else {
  process.on('message', onRequest)
  process.on('disconnect', () => process.exit())
  // Ctrl-C reaches every process of the terminal; what it means is for the parent to say.
  process.on('SIGINT', () => {})
}
