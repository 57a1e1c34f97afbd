/**
 * A pickle is a program, and `torch.load` has run strangers' programs for years. Our reader has no instruction that
 * calls anything: a checkpoint that mentions any other name than the dozen a checkpoint needs is refused by that name.
 */
import { existsSync } from 'node:fs'
import { afterAll, describe, expect, test } from 'vitest'
import { convert } from '../../dist/convert/convert.js'
import { readStateDict } from '../../dist/import/pickle.js'
import { codeOf, failure } from '../expect-code.js'
import { temporaryFolder } from '../tiny-model.js'
import { tinyHfConfig, writeFolder } from '../tiny-source.js'
import { op, stateDictPickle, type TorchTensor, torchFile, zipFile } from '../torch-writer.js'

const folder = temporaryFolder()
afterAll(() => folder.remove())

const marker = folder.path('it-ran')
const tensor: TorchTensor = { name: 'model.norm.weight', type: 'FloatStorage', shape: [4], data: Buffer.alloc(16) }
const withValue = (value: Buffer) => stateDictPickle([tensor], [['payload', value]])
const touch = op.text(`touch ${marker}`)

describe('names', () => {
  const CALLS: [string, Buffer, string][] = [
    ['os.system', op.call(op.global('os', 'system'), op.tuple(touch)), 'os.system'],
    ['posix.system', op.call(op.global('posix', 'system'), op.tuple(touch)), 'posix.system'],
    ['eval', op.call(op.global('builtins', 'eval'), op.tuple(op.text('1'))), 'builtins.eval'],
    ['subprocess.Popen', op.call(op.global('subprocess', 'Popen'), op.tuple(touch)), 'subprocess.Popen'],
    ['a name that is only mentioned', op.global('os', 'system'), 'os.system'],
    ['a name by STACK_GLOBAL', Buffer.concat([op.text('os'), op.text('system'), Buffer.from([0x93])]), 'os.system'],
    ['torch.load, which would read another pickle', op.global('torch', 'load'), 'torch.load'],
    [
      'a cousin of the allowed names',
      op.global('torch._utils', '_rebuild_sparse_tensor'),
      'torch._utils._rebuild_sparse_tensor',
    ],
    ['an allowed name with a space in it', op.global('torch', 'FloatStorage x'), 'FloatStorage x'],
    ['an allowed name in another module', op.global('torch._utils.x', '_rebuild_tensor_v2'), '_utils.x'],
    [
      'an OrderedDict that is given items',
      op.call(op.global('collections', 'OrderedDict'), op.tuple(op.text('x'))),
      'OrderedDict',
    ],
    [
      'a storage type that is called',
      op.call(op.global('torch', 'FloatStorage'), op.tuple(op.int(1 << 30))),
      'FloatStorage',
    ],
  ]

  test.each(CALLS)('%s', async (_, value, named) => {
    const { code, message } = await failure(() => readStateDict(withValue(value)))
    expect(code).toBe('ERR_PICKLE_FORBIDDEN')
    expect(message).toContain(named)
  })

  test('nothing runs, and nothing is written, when such a folder is converted', async () => {
    const evil = torchFile([tensor], {}, withValue(CALLS[0]![1]))
    const source = writeFolder(folder.path('evil'), tinyHfConfig(), { 'pytorch_model.bin': evil })
    expect(await codeOf(() => convert(source, folder.path('out.obt')))).toBe('ERR_PICKLE_FORBIDDEN')
    expect(existsSync(marker)).toBe(false)
    expect(existsSync(folder.path('out.obt'))).toBe(false)
  })
})

describe('instructions', () => {
  /** Every opcode that makes objects by other ways than names, or that tensors do not need. */
  const FORBIDDEN = {
    INST: 'i',
    OBJ: 'o',
    NEWOBJ: '\x81',
    NEWOBJ_EX: '\x92',
    EXT1: '\x82',
    EXT4: '\x84',
    BYTEARRAY8: '\x96',
    NEXT_BUFFER: '\x97',
    PERSID: 'P',
    INT: 'I',
    STRING: 'S',
    DUP: '2',
    FROZENSET: '\x91',
  }

  test.each(Object.entries(FORBIDDEN))('%s', async (_, opcode) => {
    const pickle = Buffer.concat([Buffer.from([0x80, 2]), Buffer.from(opcode, 'latin1'), Buffer.from('.')])
    const { code, message } = await failure(() => readStateDict(pickle))
    expect(code).toBe('ERR_PICKLE_FORBIDDEN')
    expect(message).toMatch(/byte 2$/)
  })

  test('BUILD on anything but a dictionary', async () => {
    const build = Buffer.concat([op.text('target'), Buffer.from('}b')])
    expect(await codeOf(() => readStateDict(withValue(build)))).toBe('ERR_PICKLE_FORBIDDEN')
  })

  test('every truncation, and every byte changed, is an error or only tensors', () => {
    const good = stateDictPickle([tensor])
    expect([...readStateDict(good).keys()]).toEqual([tensor.name])
    const attempt = (bytes: Buffer) => {
      try {
        readStateDict(bytes)
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^ERR_(PICKLE_FORBIDDEN|BAD_SOURCE)$/) })
      }
    }
    for (let length = 0; length < good.length; length++) attempt(good.subarray(0, length))
    for (let at = 0; at < good.length; at++) {
      for (let value = 0; value < 256; value += 5) {
        const bytes = Buffer.from(good)
        bytes[at] = value
        attempt(bytes)
      }
    }
  })

  test('a list that contains itself, and a length of 4 GB', async () => {
    const loop = Buffer.from(']q\x63h\x63a', 'latin1')
    expect(readStateDict(withValue(loop)).size).toBe(1)
    const long = Buffer.from('\x80\x02X\xff\xff\xff\xffabc', 'latin1')
    expect(await codeOf(() => readStateDict(long))).toBe('ERR_BAD_SOURCE')
  })
})

describe('the zip around it', () => {
  const attempt = (bytes: Buffer) => {
    const source = writeFolder(folder.path('zip'), tinyHfConfig(), { 'pytorch_model.bin': bytes })
    return codeOf(() => convert(source, folder.path('out.obt')))
  }
  const pickle: [string, Buffer] = ['m/data.pkl', stateDictPickle([tensor])]
  const data: [string, Buffer] = ['m/data/0', tensor.data]

  test.each<[string, Buffer]>([
    ['no directory at the end', torchFile([tensor]).subarray(0, 200)],
    ['no pickle', zipFile([data])],
    ['two pickles', zipFile([pickle, data, ['other/data.pkl', pickle[1]]])],
    ['an entry twice', zipFile([pickle, data, data])],
    ['a compressed entry', zipFile([pickle, data], { central: (record) => void record.writeUInt16LE(8, 10) })],
    ['an encrypted entry', zipFile([pickle, data], { central: (record) => void record.writeUInt16LE(1, 8) })],
    [
      'a size of 4 GB',
      zipFile([pickle, data], {
        central: (r, name) =>
          void (name.endsWith('0') && r.writeUInt32LE(0xfffffff0, 20) + r.writeUInt32LE(0xfffffff0, 24)),
      }),
    ],
    [
      'a zip64 size of 2^64 - 1',
      zipFile([pickle, data], { zip64: true, central: (r) => void r.fill(0xff, r.length - 24, r.length - 8) }),
    ],
    [
      'a directory that ends early',
      zipFile([pickle, data], { central: (record) => void record.writeUInt16LE(60000, 32) }),
    ],
    [
      'a local header with another name',
      zipFile([pickle, data], { local: (record) => void record.writeUInt16LE(3, 26) }),
    ],
    ['a wrong checksum', zipFile([pickle, data], { central: (record) => void record.writeUInt32LE(1, 16) })],
    ['big-endian numbers', zipFile([pickle, data, ['m/byteorder', Buffer.from('big')]])],
    [
      'the old format',
      Buffer.concat([Buffer.from('\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9', 'latin1'), Buffer.alloc(500)]),
    ],
    ['no zip at all', Buffer.alloc(5000, 'x')],
    ['nothing', Buffer.alloc(0)],
  ])('%s', async (_, bytes) => {
    expect(await attempt(bytes)).toMatch(/^ERR_(BAD_SOURCE|TRUNCATED|CHECKSUM)$/)
  })
})
