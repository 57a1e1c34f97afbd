/** The models that are measured: from files, or random ones in the shape of a known one. */

import { Model, type ModelOptions } from '../run/model.js'
import type { ModelJob, ModelSource } from './jobs.js'
import { randomModel } from './random-model.js'
import { parseWeightType, type ShapeName } from './shapes.js'

/**
 * @throws OnebitError as Model.load and randomModel; ERR_SHAPE and ERR_OUT_OF_MEMORY say that a shape does not fit its
 *   type or this machine
 */
export function openModel(source: ModelSource, job: Pick<ModelJob, 'threads' | 'isa' | 'activations'>): Promise<Model> {
  const options: ModelOptions = { threads: job.threads, activations: job.activations }
  if (job.isa !== '') options.isa = job.isa
  if ('file' in source) return Model.load(source.file, options)
  return randomModel(source.shape as ShapeName, { ...options, type: parseWeightType(source.type) })
}
