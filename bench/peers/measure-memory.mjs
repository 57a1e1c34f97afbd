// How fast this machine reads memory now, in a process of its own: node measure-memory.mjs '{"threads"}'
// Prints { gbps }, the best of the ways of reading that `onebit bench` tries too.
import { addon } from '../../dist/native/addon.js'

const { threads } = JSON.parse(process.argv[2])
const { dram_gbps } = await addon().measurePeaks({ threads, isa: '', what: ['dram'], dram_bytes: 2 ** 29 })
console.log(JSON.stringify({ gbps: dram_gbps }))
