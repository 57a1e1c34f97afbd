// A model with random weights that no file holds, written straight into the layout of the kernels: for measuring.
#pragma once

#include <atomic>
#include <memory>

#include "model/model.h"

namespace onebit {

struct RandomOptions {
    uint64_t seed = 0;
    Activations activations = Activations::int8;
    const KernelSet* kernels = nullptr;
    uint64_t memory_limit = 0;                  // bytes of weights; 0: none
    const std::atomic<bool>* cancel = nullptr;  // may be null
};

// Every number depends on the seed, its tensor and its row only: the same model on every machine, instruction set and
// thread count. Scales are such that every matrix keeps the size of its input, so that activations stay moderate in any
// depth. kinds: of every matrix. Errors: ERR_CONFIG, ERR_MEMORY_LIMIT, ERR_OUT_OF_MEMORY (before anything is touched, when the weights would
// not fit beside what else runs), ERR_ABORTED. *out is set only on success.
Status random_model(const Config& config, const std::vector<NamedKind>& kinds, const RandomOptions& options, Pool& pool,
                    std::shared_ptr<Model>* out);

}  // namespace onebit
