import type { Tool } from './parts.js'

/** Names that stand in the markup of a call as they are. */
export const TOOL_NAME = /^[\w.-]{1,64}$/

/** A tool as chat templates print it: in the shape of OpenAI's requests. */
export function templateTool({ name, description, parameters }: Tool) {
  const described = { name, ...(description === undefined ? {} : { description }) }
  return { type: 'function', function: { ...described, parameters: parameters ?? { type: 'object', properties: {} } } }
}
