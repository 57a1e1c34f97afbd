/** Messages and tools of a chat request, checked, as templates take them. */
import type { Tool, ToolChoice } from '../answer/parts.js'
import { TOOL_NAME } from '../answer/template-tool.js'
import type { ChatMessage } from '../text/chat-template.js'
import { isRecord } from '../text/tokenizer-json.js'
import { type Fields, withoutNulls } from './body.js'
import { badField } from './errors.js'

const ROLES: Readonly<Record<string, string>> = {
  system: 'system',
  developer: 'system',
  user: 'user',
  assistant: 'assistant',
  tool: 'tool',
}
const MOST_TOOLS = 128

/** @throws HttpError */
export function messagesOf({ messages }: Fields): ChatMessage[] {
  if (!Array.isArray(messages) || messages.length === 0) throw badField('messages', 'must be an array of messages')
  return messages.map((message: unknown, i) => {
    const at = `messages[${i}]`
    if (!isRecord(message)) throw badField(at, 'must be an object with role and content')
    return oneMessage(at, withoutNulls(message))
  })
}

/** Variables that the template gets besides the tools. @throws HttpError */
export function variablesOf({ chat_template_kwargs: variables = {} }: Fields): Record<string, unknown> {
  if (!isRecord(variables)) throw badField('chat_template_kwargs', 'must be an object')
  return variables
}

function oneMessage(at: string, fields: Fields): ChatMessage {
  const role = typeof fields.role === 'string' && Object.hasOwn(ROLES, fields.role) ? ROLES[fields.role] : undefined
  if (role === undefined) throw badField(`${at}.role`, `must be one of ${Object.keys(ROLES).join(', ')}`)
  const calls = role === 'assistant' ? toolCalls(`${at}.tool_calls`, fields.tool_calls) : undefined
  const content = contentText(`${at}.content`, fields.content, calls !== undefined)
  const texts = ['name', 'tool_call_id', 'reasoning_content'].filter((name) => fields[name] !== undefined)
  for (const name of texts) if (typeof fields[name] !== 'string') throw badField(`${at}.${name}`, 'must be a string')
  return {
    role,
    content,
    ...Object.fromEntries(texts.map((name) => [name, fields[name]])),
    ...(calls ? { tool_calls: calls } : {}),
  }
}

function contentText(at: string, content: unknown, mayLack: boolean): string {
  if (typeof content === 'string') return content
  if (content === undefined && mayLack) return ''
  if (!Array.isArray(content)) throw badField(at, 'must be a string or an array of parts')
  const texts = content.map((part: unknown, i) => {
    if (isRecord(part) && TEXT_PARTS.includes(part.type as string) && typeof part.text === 'string') return part.text
    throw badField(`${at}[${i}]`, 'must be a part of type text; others are not supported')
  })
  return texts.join('')
}

const TEXT_PARTS = ['text', 'input_text', 'output_text']

function toolCalls(at: string, calls: unknown): object[] | undefined {
  if (calls === undefined) return undefined
  if (!Array.isArray(calls)) throw badField(at, 'must be an array')
  if (calls.length === 0) return undefined
  return calls.map((call: unknown, i) => {
    const given = isRecord(call) && isRecord(call.function) ? call.function : undefined
    if (typeof given?.name !== 'string') throw badField(`${at}[${i}]`, 'must have a function with a name')
    const { name, arguments: args } = given
    const id = (call as Record<string, unknown>).id
    return {
      ...(typeof id === 'string' ? { id } : {}),
      type: 'function',
      function: { name, arguments: argumentsOf(args) },
    }
  })
}

/** Templates print arguments as an object; clients send the JSON text that they were given. */
function argumentsOf(value: unknown): unknown {
  if (typeof value !== 'string') return value ?? {}
  try {
    return JSON.parse(value === '' ? '{}' : value)
  } catch {
    return value
  }
}

export interface ToolFields {
  tools: Tool[]
  /** as the template gets them */
  given: unknown[]
  choice: ToolChoice
  parallel: boolean
}

/** @throws HttpError */
export function toolsOf({ tools = [], tool_choice: choice, parallel_tool_calls: parallel = true }: Fields): ToolFields {
  if (!Array.isArray(tools)) throw badField('tools', 'must be an array')
  if (tools.length > MOST_TOOLS)
    throw badField('tools', `has ${tools.length} entries, at most ${MOST_TOOLS} are possible`)
  if (typeof parallel !== 'boolean') throw badField('parallel_tool_calls', 'must be true or false')
  const checked = tools.map((tool: unknown, i) => oneTool(`tools[${i}]`, tool))
  return { tools: checked, given: tools, choice: toolChoice(choice, checked), parallel }
}

function oneTool(at: string, tool: unknown): Tool {
  if (!isRecord(tool) || tool.type !== 'function' || !isRecord(tool.function)) {
    throw badField(at, 'must be an object of type function, with a function')
  }
  const { name, description, parameters } = withoutNulls(tool.function)
  if (typeof name !== 'string' || !TOOL_NAME.test(name)) {
    throw badField(`${at}.function.name`, 'must be 1 to 64 letters, digits, dots, dashes or underscores')
  }
  if (description !== undefined && typeof description !== 'string') {
    throw badField(`${at}.function.description`, 'must be a string')
  }
  if (parameters !== undefined && !isRecord(parameters)) {
    throw badField(`${at}.function.parameters`, 'must be a JSON Schema: an object')
  }
  return { name, ...(description === undefined ? {} : { description }), ...(parameters ? { parameters } : {}) }
}

function toolChoice(choice: unknown, tools: readonly Tool[]): ToolChoice {
  if (choice === undefined) return 'auto'
  if (choice === 'auto' || choice === 'none') return choice
  if (choice === 'required' && tools.length > 0) return choice
  const named = isRecord(choice) && isRecord(choice.function) ? choice.function.name : undefined
  if (typeof named === 'string' && tools.some(({ name }) => name === named)) return { name: named }
  throw badField('tool_choice', 'must be auto, none, required, or name one of the tools')
}
