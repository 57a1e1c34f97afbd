import type { Blobs } from '../dist/config/tensors.js'
import { openObt } from '../dist/obt/obt.js'

/** A blob of a `.obt` file by itself. */
export async function readBlob({ path }: { path: string }, name: keyof Blobs): Promise<Uint8Array | undefined> {
  const obt = await openObt(path)
  try {
    return await obt.blob(name)
  } finally {
    await obt.close()
  }
}
