// Checks the compiled kernel and probe sets: node scripts/check-objects.mjs <build folder>
//
// Each object must define one global symbol, its KernelSet or ProbeSet. An inline function or a template of the standard library
// would be a weak symbol compiled for that instruction set, and the linker is free to take the AVX-512 copy for code
// that runs on every machine. And no object may hold instructions of a set beyond its own.
// NM and OBJDUMP name the tools to use, for cross-compiled objects.
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join, sep } from 'node:path'

const forbidden = {
  scalar: /%[yz]mm|\bsdot\b/,
  math: /%[yz]mm|\bsdot\b/,
  dispatch: /%[yz]mm|\bsdot\b/,
  avx2: /%zmm|%[xy]mm(1[6-9]|2\d|3[01])\b|%k[1-7]|vpdpbusd/,
  avxvnni: /%zmm|%[xy]mm(1[6-9]|2\d|3[01])\b|%k[1-7]/,
  avx512: /vpdpbusd/,
  avx512vnni: /\bt(dp|ile|ld)|vgf2p8|vpermb\b/,
  amx: /\btdp(bf16|fp16)/,
  neon: /\bsdot\b|\tcrc32c/,
  neondot: /\b[su]mmla\b/,
}
// What must be there, so that a set compiled without its flags does not pass.
const required = {
  avx2: /%ymm/,
  avxvnni: /\{vex\} vpdpbusd|vpdpbusd/,
  avx512: /%zmm/,
  avx512vnni: /vpdpbusd.*%zmm/,
  amx: /\btdpbssd\b/,
  neon: /\btbl\b|\bsadalp\b/,
  neondot: /\bsdot\b/,
}
const sets = new Set(['scalar', 'avx2', 'avxvnni', 'avx512', 'avx512vnni', 'amx', 'neon', 'neondot'])

const folder = process.argv[2]
if (!folder) {
  console.error('usage: node scripts/check-objects.mjs <build folder>')
  process.exit(2)
}
if (process.platform === 'win32') {
  console.log('skipped: reads ELF and Mach-O objects with nm and objdump, which MSVC builds do not have')
  process.exit(0)
}

const tool = (name, args) => {
  const program = process.env[name.toUpperCase()] ?? name
  return execFileSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 28 })
}
const objects = readdirSync(folder, { recursive: true })
  .map((path) => ({ path: join(folder, path), parts: path.split(sep) }))
  .map(({ path, parts }) => ({ path, folder: parts.at(-2), name: parts.at(-1).match(/^(\w+)\.cpp\.o(?:bj)?$/)?.[1] }))
  .filter((object) => ['kernels', 'probes'].includes(object.folder) && object.name in forbidden)

const problems = []
for (const { path, folder: kind, name } of objects) {
  if (sets.has(name)) {
    const symbols = tool('nm', ['-g', path])
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter((fields) => fields.length === 3 && fields[1] !== 'U')
      .map((fields) => fields[2])
    const only = symbols.length === 1 && new RegExp(`${kind}_${name}(?![a-z0-9])`).test(symbols[0])
    if (!only) problems.push(`${path}: should define the set and nothing else, but defines ${symbols.join(', ')}`)
  }
  const code = tool('objdump', ['-d', '--no-show-raw-insn', path])
  const line = code.split('\n').find((text) => forbidden[name].test(text) && text.includes('\t'))
  if (line) problems.push(`${path}: an instruction beyond its set: ${line.trim()}`)
  if (required[name] && !required[name].test(code)) problems.push(`${path}: none of its set's own instructions`)
}
if (objects.length < 4) problems.push(`${folder}: only ${objects.length} kernel objects found: is this a build folder?`)
for (const problem of problems) console.error(problem)
if (problems.length > 0) process.exit(1)
console.log(
  `${objects.length} kernel objects: ${objects.map((object) => object.name).join(', ')}: one symbol each, no foreign instructions`,
)
