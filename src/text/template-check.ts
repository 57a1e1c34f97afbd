/** Whether a chat template can be used at all, found out without rendering it. */
import { OnebitError } from '../errors.js'
import { Template, templateProblem } from './jinja/template.js'

/** @throws OnebitError ERR_TEMPLATE with the line of what is no template, or uses what is not supported */
export function checkTemplate(source: string): void {
  let problem: string | undefined
  try {
    problem = new Template(source).unsupported()[0]
  } catch (error) {
    problem = templateProblem(error)
  }
  if (problem !== undefined) throw new OnebitError('ERR_TEMPLATE', `The chat template cannot be used: ${problem}`)
}
