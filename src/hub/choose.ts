/** Which of a repository's models is meant, and what is said when that cannot be told. */
import { formatBytes, plainLine } from '../cli/format.js'
import { OnebitError } from '../errors.js'
import { type Candidate, type ListedFile, mentionsType, namedCandidates } from './candidates.js'
import { isOfType, type Look, mainType } from './look.js'

/** Looks at some models, in their order. */
export type LookAtAll<C extends Candidate> = (candidates: readonly C[]) => Promise<Look<C>[]>

/** Asks a person which of several is meant; undefined: none of them. */
export type Choose = (looks: readonly Look[]) => Promise<Look | undefined>

export interface Request {
  /** OWNER/NAME, for messages */
  repository: string
  /** a file, a folder or a type of numbers */
  wanted: string | undefined
  choose?: Choose | undefined
}

/**
 * The one model that is meant, and runs here.
 * @throws OnebitError ERR_HUB_SEVERAL, ERR_HUB_NOTHING_RUNS, ERR_HUB_NOT_FOUND, and why a file that was named does not run
 */
export async function chooseModel<C extends Candidate>(
  candidates: readonly C[],
  files: readonly ListedFile[],
  look: LookAtAll<C>,
  request: Request,
): Promise<C> {
  const { repository, wanted } = request
  if (candidates.length === 0) throw nothingAtAll(repository, files)
  if (wanted === undefined) return pick(await look(candidates), request)
  const [named] = namedCandidates(candidates, wanted)
  if (named !== undefined) return checked((await look([named]))[0]!, repository)
  return pick(await ofType(candidates, wanted, look, request), request)
}

function checked<C extends Candidate>({ candidate, error }: Look<C>, repository: string): C {
  if (error === undefined) return candidate
  const message = `${repository}:${candidate.name} does not run here: ${error.message}`
  throw new OnebitError(error.code, message, { hint: error.hint, cause: error })
}

/**
 * Those with numbers of a type, by what their headers say. Names only tell which to look at first: when one of those is what its
 * name says, nothing is fetched of the others.
 */
async function ofType<C extends Candidate>(
  candidates: readonly C[],
  type: string,
  look: LookAtAll<C>,
  { repository }: Request,
): Promise<Look<C>[]> {
  const mentioning = candidates.filter((candidate) => mentionsType(candidate, type))
  const first = await look(mentioning)
  const found = first.filter((one) => one.error === undefined && holds(one, type))
  if (found.length > 0) return found
  const others = candidates.filter((candidate) => !mentioning.includes(candidate))
  const rest = await look(others)
  const byHeader = rest.filter((one) => isOfType(one, type))
  if (byHeader.length > 0) return byHeader
  // What is called so and does not run is what was meant: why it does not is the answer.
  const [refused] = first.filter(({ error }) => error !== undefined)
  if (refused) checked(refused, repository)
  throw new OnebitError('ERR_HUB_NOT_FOUND', `${repository} has no file and no type ${JSON.stringify(type)}`, {
    hint: `It has:\n${lines([...first, ...rest], repository)}`,
  })
}

/** Q4_K_M is a mixture with q4_k in it; Q8_0 on a file without q8_0 is only a name, and so is F32 on one with f32 norms. */
function holds(look: Look, type: string): boolean {
  const { types } = look
  if (types.length === 0 || isOfType(look, type)) return true
  return types.some((own) => own !== 'f32' && type.toLowerCase().startsWith(own))
}

async function pick<C extends Candidate>(looks: readonly Look<C>[], request: Request): Promise<C> {
  const { repository, choose } = request
  const running = looks.filter(({ error }) => error === undefined)
  const [only, ...more] = running
  if (only === undefined) {
    throw new OnebitError('ERR_HUB_NOTHING_RUNS', `${repository} has nothing that runs here`, {
      hint: `It has:\n${lines(looks, repository)}`,
    })
  }
  if (more.length === 0) return only.candidate
  const chosen = await choose?.(running)
  if (chosen !== undefined) return chosen.candidate as C
  throw new OnebitError('ERR_HUB_SEVERAL', `${repository} has ${running.length} models that run here: say which`, {
    hint: `Name one by its file, or by its type where that is enough:\n${lines(looks, repository)}`,
  })
}

function nothingAtAll(repository: string, files: readonly ListedFile[]): OnebitError {
  const shown = files.slice(0, 12).map(({ path, bytes }) => `  ${path}  ${formatBytes(bytes)}`)
  const more = files.length > shown.length ? [`  and ${files.length - shown.length} more`] : []
  const list = files.length === 0 ? 'It is empty.' : `It has:\n${[...shown, ...more].join('\n')}`
  return new OnebitError(
    'ERR_HUB_NOTHING_RUNS',
    `${repository} has no GGUF file, no .obt file and no whole model folder`,
    {
      hint: `${list}\nIts author, or somebody else, may have one with GGUF files.`,
    },
  )
}

/** A model in one line: its name, size, type, and what it is or why it does not run. */
export function lookLine({ candidate, words, error, types }: Look, repository: string): string {
  const name = candidate.name === '' ? `hf:${repository}` : candidate.name
  const type = mainType({ types })
  const what = words === undefined ? `does not run here: ${error?.message}` : words
  return plainLine([name, formatBytes(candidate.bytes), ...(type ? [type] : []), what].join('  '))
}

function lines(looks: readonly Look[], repository: string): string {
  return looks.map((look) => `  ${lookLine(look, repository)}`).join('\n')
}
