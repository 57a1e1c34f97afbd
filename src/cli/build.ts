import { buildFromSource } from '../native/build-from-source.js'
import type { Command } from './arguments.js'

export const buildCommand: Command = {
  name: 'build',
  summary: 'Build the addon from source, for this machine (needs CMake and a C++20 compiler).',
  usage: 'build [--jobs N]',
  positionals: { min: 0, max: 0 },
  options: {
    jobs: {
      type: 'integer',
      short: 'j',
      min: 1,
      max: 1024,
      value: 'N',
      help: 'files compiled at once (as many as processors)',
    },
  },
  notes: [
    'The package brings an addon for the usual systems, and this is for the others, or for whoever wants their own. The result lies in the package, build/Release/onebit.node, and comes before the one that was brought; delete it to go back.',
    'Nothing else ever starts a build. CXX and CXXFLAGS in the environment are CMake’s to read.',
  ],
  async run({ jobs }) {
    const path = await buildFromSource(jobs === undefined ? {} : { jobs: Number(jobs) })
    console.log(path)
    return 0
  },
}
