/** What Windows alone does to a program, in a way that can be tried everywhere. */
import { describe, expect, it } from 'vitest'
import { renameOver } from '../dist/files/rename-over.js'

describe('a file that another program holds for a moment', () => {
  const failing = (times: number, code: string) => {
    let calls = 0
    const move = async () => {
      calls++
      if (calls <= times) throw Object.assign(new Error(code), { code })
    }
    return { move, calls: () => calls }
  }

  it.each(['EPERM', 'EACCES', 'EBUSY'])('is waited for: %s', async (code) => {
    const { move, calls } = failing(2, code)
    await renameOver('a', 'b', 60_000, move)
    expect(calls()).toBe(3)
  })

  it('is not waited for without end', async () => {
    const { move, calls } = failing(Number.POSITIVE_INFINITY, 'EBUSY')
    await expect(renameOver('a', 'b', 50, move)).rejects.toMatchObject({ code: 'EBUSY' })
    expect(calls()).toBeLessThan(5)
  })

  it('is not what another trouble is taken for', async () => {
    const { move, calls } = failing(1, 'ENOSPC')
    await expect(renameOver('a', 'b', 60_000, move)).rejects.toMatchObject({ code: 'ENOSPC' })
    expect(calls()).toBe(1)
  })
})
