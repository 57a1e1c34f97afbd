// What a compiled addon needs and offers, read from the file itself (ELF, PE or Mach-O), because most of the eight can run on
// no machine at hand: node scripts/check-addon.mjs SYSTEM FILE, where SYSTEM is a name of scripts/prebuilds.mjs.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

/** What Node looks for in an addon, and all that an addon of ours may offer. */
const EXPORTS = ['napi_register_module_v1', 'node_api_module_get_api_version_v1']
/** Names that every library on macOS has of itself. */
const OF_THE_LINKER = new Set(['_mh_dylib_header', '__dso_handle'])
const GLIBC_FLOOR = [2, 17]
const MACOS_FLOOR = 0x0b0000 // 11.0
const LIBRARIES = {
  glibc: /^(libc|libm|libpthread|libdl|librt)\.so\.\d$|^ld-linux-(x86-64|aarch64)\.so\.\d$/,
  musl: /^libc\.so$/,
  // Both are in every Windows since 10.
  win32: /^kernel32\.dll$|^api-ms-win-crt-[a-z]+-l1-1-0\.dll$/i,
  darwin: /^\/usr\/lib\/libSystem\.B\.dylib$/,
}
const MACHINES = {
  elf: { x64: 62, arm64: 183 },
  pe: { x64: 0x8664, arm64: 0xaa64 },
  mach: { x64: 0x01000007, arm64: 0x0100000c },
}

function text(bytes, at) {
  return bytes.toString('latin1', at, bytes.indexOf(0, at))
}

/** ELF, 64 bits: { machine, libraries, exports, versions } */
export function readElf(bytes) {
  const number = (at) => Number(bytes.readBigUInt64LE(at))
  const sections = Array.from({ length: bytes.readUInt16LE(60) }, (_, i) => {
    const at = number(40) + i * bytes.readUInt16LE(58)
    const [type, link] = [bytes.readUInt32LE(at + 4), bytes.readUInt32LE(at + 40)]
    return { type, link, offset: number(at + 24), size: number(at + 32) }
  })
  const strings = ({ link }) => sections[link].offset
  const dynamic = sections.find(({ type }) => type === 6)
  const libraries = []
  for (let at = dynamic.offset; at < dynamic.offset + dynamic.size; at += 16)
    if (number(at) === 1) libraries.push(text(bytes, strings(dynamic) + number(at + 8)))
  const symbols = sections.find(({ type }) => type === 11)
  const exports = []
  for (let at = symbols.offset + 24; at < symbols.offset + symbols.size; at += 24) {
    const visible = bytes[at + 4] >> 4 !== 0 && bytes.readUInt16LE(at + 6) !== 0
    if (visible) exports.push(text(bytes, strings(symbols) + bytes.readUInt32LE(at)))
  }
  const needs = sections.find(({ type }) => type === 0x6ffffffe)
  const versions = needs === undefined ? [] : neededVersions(bytes, needs.offset, strings(needs))
  return { machine: bytes.readUInt16LE(18), libraries, exports, versions }
}

/** The names in .gnu.version_r: "GLIBC_2.17". */
function neededVersions(bytes, offset, strings) {
  const names = []
  for (let at = offset; ; ) {
    let entry = at + bytes.readUInt32LE(at + 8)
    for (let i = bytes.readUInt16LE(at + 2); i > 0; i--) {
      names.push(text(bytes, strings + bytes.readUInt32LE(entry + 8)))
      entry += bytes.readUInt32LE(entry + 12)
    }
    const next = bytes.readUInt32LE(at + 12)
    if (next === 0) return names
    at += next
  }
}

/** PE32+: { machine, libraries, exports } */
export function readPe(bytes) {
  const header = bytes.readUInt32LE(0x3c) + 4
  const optional = header + 20
  const table = optional + bytes.readUInt16LE(header + 16)
  const sections = Array.from({ length: bytes.readUInt16LE(header + 2) }, (_, i) => {
    const at = table + 40 * i
    return { address: bytes.readUInt32LE(at + 12), size: bytes.readUInt32LE(at + 16), raw: bytes.readUInt32LE(at + 20) }
  })
  const place = (address) => {
    const inside = sections.find((one) => address >= one.address && address < one.address + one.size)
    return address - inside.address + inside.raw
  }
  const directory = (index) => bytes.readUInt32LE(optional + 112 + 8 * index)
  const libraries = []
  if (directory(1) !== 0)
    for (let at = place(directory(1)); bytes.readUInt32LE(at + 12) !== 0; at += 20)
      libraries.push(text(bytes, place(bytes.readUInt32LE(at + 12))))
  const offers = place(directory(0))
  const names = place(bytes.readUInt32LE(offers + 32))
  const exports = Array.from({ length: bytes.readUInt32LE(offers + 24) }, (_, i) =>
    text(bytes, place(bytes.readUInt32LE(names + 4 * i))),
  )
  return { machine: bytes.readUInt16LE(header), libraries, exports }
}

/** Mach-O, 64 bits: { machine, libraries, exports, minimum, id, signature } */
export function readMach(bytes) {
  const found = { machine: bytes.readUInt32LE(4), libraries: [], exports: [] }
  let at = 32
  for (let i = bytes.readUInt32LE(16); i > 0; i--) {
    const [command, size] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)]
    if (command === 0xc) found.libraries.push(text(bytes, at + bytes.readUInt32LE(at + 8)))
    else if (command === 0xd) found.id = text(bytes, at + bytes.readUInt32LE(at + 8))
    else if (command === 0x32) found.minimum = bytes.readUInt32LE(at + 12)
    else if (command === 0x24) found.minimum = bytes.readUInt32LE(at + 8)
    else if (command === 0x1d) found.signature = checkSignature(bytes, bytes.readUInt32LE(at + 8))
    else if (command === 2) {
      const [symbols, count, strings] = [8, 12, 16].map((offset) => bytes.readUInt32LE(at + offset))
      for (let symbol = symbols; symbol < symbols + 16 * count; symbol += 16) {
        const type = bytes[symbol + 4]
        // Defined and external. What C++ defines weakly everywhere (operator new) is made one of by the system's loader.
        const weak = (bytes.readUInt16LE(symbol + 6) & 0x80) !== 0
        const name = text(bytes, strings + bytes.readUInt32LE(symbol)).replace(/^_/, '')
        if ((type & 0x1f) === 0x0f && !weak && !OF_THE_LINKER.has(name)) found.exports.push(name)
      }
    }
    at += size
  }
  return found
}

/** What is wrong with a signature without a signer, as Macs with Apple's processors ask for; '' when nothing is. */
function checkSignature(bytes, offset) {
  const blobs = bytes.readUInt32BE(offset + 8)
  let directory = -1
  for (let i = 0; i < blobs; i++)
    if (bytes.readUInt32BE(offset + 12 + 8 * i) === 0) directory = offset + bytes.readUInt32BE(offset + 16 + 8 * i)
  if (bytes.readUInt32BE(offset) !== 0xfade0cc0 || directory < 0 || bytes.readUInt32BE(directory) !== 0xfade0c02)
    return 'it has no code directory'
  const field = (at) => bytes.readUInt32BE(directory + at)
  const [flags, hashes, slots, limit] = [field(12), field(16), field(28), field(32)]
  const [hashBytes, pageBits] = [bytes[directory + 36], bytes[directory + 39]]
  if ((flags & 2) === 0) return 'it is not an ad-hoc signature'
  if (limit !== offset) return `it covers ${limit} bytes, not the ${offset} before it`
  if (slots !== Math.ceil(limit / (1 << pageBits))) return `it has ${slots} hashes`
  for (let page = 0; page < slots; page++) {
    const from = page << pageBits
    const hash = createHash('sha256')
      .update(bytes.subarray(from, Math.min(from + (1 << pageBits), limit)))
      .digest()
    const at = directory + hashes + page * hashBytes
    if (!hash.equals(bytes.subarray(at, at + hashBytes))) return `the hash of page ${page} is wrong`
  }
  return ''
}

function checkCommon({ machine, libraries, exports }, kind, arch, allowed) {
  const problems = []
  if (machine !== MACHINES[kind][arch]) problems.push(`it is for machine 0x${machine.toString(16)}, not ${arch}`)
  const foreign = libraries.filter((name) => !allowed.test(name))
  if (foreign.length > 0) problems.push(`it needs ${foreign.join(', ')}`)
  if ([...exports].sort().join() !== EXPORTS.join()) problems.push(`it exports ${exports.join(', ') || 'nothing'}`)
  return problems
}

function checkElf(bytes, arch, libc) {
  const found = readElf(bytes)
  const problems = checkCommon(found, 'elf', arch, LIBRARIES[libc])
  const tooNew = found.versions.filter((name) => {
    const [major, minor] = /^GLIBC_(\d+)\.(\d+)/.exec(name)?.slice(1).map(Number) ?? [99, 0]
    return major > GLIBC_FLOOR[0] || (major === GLIBC_FLOOR[0] && minor > GLIBC_FLOOR[1])
  })
  if (tooNew.length > 0) problems.push(`it needs ${tooNew.join(', ')}, newer than glibc ${GLIBC_FLOOR.join('.')}`)
  return problems
}

function checkMach(bytes, arch) {
  const found = readMach(bytes)
  const problems = checkCommon(found, 'mach', arch, LIBRARIES.darwin)
  if (found.minimum !== MACOS_FLOOR) problems.push(`it asks for macOS 0x${found.minimum?.toString(16)}, not 11.0`)
  if (found.id?.startsWith('/')) problems.push(`its name is the path of a build: ${found.id}`)
  if (arch === 'arm64' && found.signature === undefined) problems.push('it is not signed')
  if (found.signature) problems.push(`its signature is wrong: ${found.signature}`)
  return problems
}

/** What keeps the addon at `path` from being the one for `target` ("linux-x64-glibc"); none when all is well. */
export function checkAddon(path, target) {
  const bytes = readFileSync(path)
  const [platform, arch, libc] = target.split('-')
  const magic = bytes.readUInt32LE(0)
  const kind =
    magic === 0x464c457f ? 'linux' : (magic & 0xffff) === 0x5a4d ? 'win32' : magic === 0xfeedfacf ? 'darwin' : ''
  if (kind !== platform) return [`it is not a file for ${platform}`]
  if (platform === 'linux') return checkElf(bytes, arch, libc)
  if (platform === 'win32') return checkCommon(readPe(bytes), 'pe', arch, LIBRARIES.win32)
  return checkMach(bytes, arch)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [target, path] = process.argv.slice(2)
  const problems = checkAddon(path, target)
  for (const problem of problems) console.error(`${path}: ${problem}`)
  process.exitCode = problems.length === 0 ? 0 : 1
}
