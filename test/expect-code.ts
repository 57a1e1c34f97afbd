/** What a failed call must look like to a user: an OnebitError with this code, a sentence, and no stack in it. */
import { expect } from 'vitest'
import { OnebitError } from '../dist/errors.js'

export async function failure(action: () => unknown): Promise<OnebitError> {
  try {
    await action()
  } catch (error) {
    if (!(error instanceof OnebitError)) throw error
    expect(error.message).not.toMatch(/\n\s+at /)
    return error
  }
  throw new Error('should have failed, but went well')
}

export async function codeOf(action: () => unknown): Promise<string> {
  return (await failure(action)).code
}
