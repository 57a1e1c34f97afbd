/** `text` in lines of at most 72 characters: something of one's own for the bundler to bundle. */
export function wrapped(text) {
  return text.replace(/(.{1,72})(?:\s+|$)/g, '$1\n').trimEnd()
}
