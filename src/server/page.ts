export function pageFile(_path: string): { type: string; bytes: Uint8Array } | undefined {
  return undefined
}
