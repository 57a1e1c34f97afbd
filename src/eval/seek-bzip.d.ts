/** seek-bzip 2.0 has no declarations of its own. */
declare module 'seek-bzip' {
  const bzip: { decode(input: Buffer): Buffer }
  export default bzip
}
