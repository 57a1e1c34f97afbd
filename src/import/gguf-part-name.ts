/** What llama.cpp's gguf-split calls the files of a model: NAME-00001-of-00003.gguf and so on. */
export interface PartName {
  start: string
  /** five digits, from 00001 on */
  number: string
  count: number
}

/** undefined: the file is called something else. */
export function parsePartName(name: string): PartName | undefined {
  const [, start, number, count] = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/s.exec(name) ?? []
  return count === undefined ? undefined : { start: start!, number: number!, count: Number(count) }
}

/** The names of the first `most` parts of a model, or of all. */
export function namesOfParts({ start, count }: PartName, most = count): string[] {
  const digits = (value: number) => String(value).padStart(5, '0')
  return Array.from({ length: Math.min(count, most) }, (_, i) => `${start}-${digits(i + 1)}-of-${digits(count)}.gguf`)
}
