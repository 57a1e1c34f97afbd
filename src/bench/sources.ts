/** The models that are measured: from files, or random ones in the shape of a known one. */

import { parseWeightType, type ShapeName } from '../config/shapes.js'
import { Model, type ModelOptions } from '../run/model.js'
import type { BenchJob, ModelSource } from './jobs.js'

/**
 * @throws OnebitError as Model.load and Model.random; ERR_SHAPE and ERR_OUT_OF_MEMORY say that a shape does not fit its
 *   type or this machine
 */
export function openModel(source: ModelSource, job: Pick<BenchJob, 'threads' | 'isa' | 'activations'>): Promise<Model> {
  const options: ModelOptions = { threads: job.threads, activations: job.activations }
  if (job.isa !== '') options.isa = job.isa
  if ('file' in source) return Model.load(source.file, options)
  return Model.random(source.shape as ShapeName, { ...options, type: parseWeightType(source.type) })
}
