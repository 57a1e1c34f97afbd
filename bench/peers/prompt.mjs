/** `count` ids of a vocabulary, the same for both engines: none of them the special ones at its beginning. */
export function promptOf(count, vocabSize) {
  return Array.from({ length: count }, (_, i) => 300 + ((i * 7919) % (vocabSize - 300)))
}
