/** Prompts of the AI SDK as messages of a chat. */
import type {
  LanguageModelV4FilePart,
  LanguageModelV4Message,
  LanguageModelV4Prompt,
  LanguageModelV4ToolResultOutput,
  LanguageModelV4ToolResultPart,
  SharedV4Warning,
} from '@ai-sdk/provider'
import { OnebitError } from '../errors.js'
import type { ChatMessage } from '../text/chat-template.js'

type AssistantPart = Extract<LanguageModelV4Message, { role: 'assistant' }>['content'][number]

/** @throws OnebitError ERR_UNSUPPORTED_PART: something else than text stands in the prompt */
export function chatMessages(prompt: LanguageModelV4Prompt, warnings: SharedV4Warning[]): ChatMessage[] {
  return prompt.flatMap((message) => messagesFrom(message, warnings))
}

function messagesFrom(message: LanguageModelV4Message, warnings: SharedV4Warning[]): ChatMessage[] {
  switch (message.role) {
    case 'system':
      return [{ role: 'system', content: message.content }]
    case 'user':
      return [{ role: 'user', content: userText(message.content) }]
    case 'assistant':
      return [assistantMessage(message.content, warnings)]
    case 'tool':
      return message.content.flatMap((part) => (part.type === 'tool-result' ? [toolMessage(part)] : []))
  }
}

/** What stands in a prompt that is nothing but one text of the user; undefined when there is more. */
export function onlyText(prompt: LanguageModelV4Prompt): string | undefined {
  const [first, ...others] = prompt
  return first?.role === 'user' && others.length === 0 ? userText(first.content) : undefined
}

function userText(parts: Extract<LanguageModelV4Message, { role: 'user' }>['content']): string {
  return parts.map((part) => (part.type === 'text' ? part.text : fileText(part))).join('')
}

/** Documents of plain text are text; nothing here sees or hears. */
function fileText({ data, mediaType }: Pick<LanguageModelV4FilePart, 'data' | 'mediaType'>): string {
  if (data.type === 'text') return data.text
  if (data.type === 'data' && /^text(\/|$)/.test(mediaType)) {
    const bytes = typeof data.data === 'string' ? Buffer.from(data.data, 'base64') : data.data
    return new TextDecoder().decode(bytes)
  }
  throw new OnebitError('ERR_UNSUPPORTED_PART', `The prompt has a file of the type ${mediaType}.`, {
    hint: 'These models read text only.',
  })
}

function assistantMessage(parts: readonly AssistantPart[], warnings: SharedV4Warning[]): ChatMessage {
  let [content, reasoning] = ['', '']
  const calls: object[] = []
  for (const part of parts) {
    switch (part.type) {
      case 'text':
        content += part.text
        break
      case 'reasoning':
        reasoning += part.text
        break
      case 'file':
        content += fileText(part)
        break
      case 'tool-call':
        calls.push({
          id: part.toolCallId,
          type: 'function',
          function: { name: part.toolName, arguments: part.input ?? {} },
        })
        break
      default:
        // Of other providers: their tools, files of their thinking.
        warnings.push({ type: 'unsupported', feature: `${part.type} in a message of the assistant` })
    }
  }
  return {
    role: 'assistant',
    content,
    ...(reasoning === '' ? {} : { reasoning_content: reasoning }),
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
  }
}

function toolMessage({ toolCallId, toolName, output }: LanguageModelV4ToolResultPart): ChatMessage {
  return { role: 'tool', name: toolName, tool_call_id: toolCallId, content: resultText(output) }
}

function resultText(output: LanguageModelV4ToolResultOutput): string {
  switch (output.type) {
    case 'text':
    case 'error-text':
      return output.value
    case 'json':
    case 'error-json':
      return JSON.stringify(output.value)
    case 'execution-denied':
      return output.reason ?? 'The user did not allow this call.'
    case 'content':
      return output.value.map((part) => (part.type === 'text' ? part.text : resultFile(part))).join('')
  }
}

function resultFile(
  part: Exclude<Extract<LanguageModelV4ToolResultOutput, { type: 'content' }>['value'][number], { type: 'text' }>,
): string {
  if (part.type === 'file') return fileText(part)
  throw new OnebitError('ERR_UNSUPPORTED_PART', `The result of a tool has a part of the type ${part.type}.`, {
    hint: 'These models read text only.',
  })
}
