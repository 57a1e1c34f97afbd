/** Numbers for people. */

/** 1234567 -> "1.2 MB": decimal units, as disks and download pages count. */
export function formatBytes(bytes: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB']
  let value = bytes
  let unit = 0
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000
    unit++
  }
  return unit === 0 ? `${bytes} bytes` : `${value.toFixed(value < 10 ? 2 : 1)} ${units[unit]}`
}

/** 134515008 -> "134.5 M". */
export function formatCount(count: number): string {
  if (count >= 1e9) return `${(count / 1e9).toFixed(2)} G`
  if (count >= 1e6) return `${(count / 1e6).toFixed(1)} M`
  return count >= 1e4 ? `${(count / 1e3).toFixed(1)} k` : String(count)
}

/** Text from a file in one line of a terminal: whatever would move the cursor or turn the line around is written out. */
export function plainLine(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    return `\\u{${character.codePointAt(0)!.toString(16)}}`
  })
}

export function formatRate(tokens: number, ms: number): string {
  return ms > 0 ? `${((1000 * tokens) / ms).toFixed(1)} tokens/s` : '- tokens/s'
}
