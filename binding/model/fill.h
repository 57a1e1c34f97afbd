// A model whose numbers come piece by piece from whoever has them, in the forms that a .obt file has them in: for models of
// other formats, which are converted on their way into memory and never written.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "model/bind.h"

namespace onebit {

class Filling {
public:
    // Reserves the memory. ERR_CONFIG, ERR_TENSOR_TABLE, ERR_OUT_OF_MEMORY.
    static Status create(const Config& config, const std::vector<NamedKind>& kinds, Activations activations,
                         const KernelSet* kernels, std::unique_ptr<Filling>* out);

    // The next bytes of a tensor; those of one come in order, and before another begins it is whole.
    // ERR_TENSOR_TABLE when it is no tensor of this model, is there already, or is left half; ERR_TENSOR_SIZE when there are
    // too many bytes; ERR_NOT_FINITE.
    Status write(const std::string& name, const uint8_t* bytes, size_t count);

    // Every tensor is whole. ERR_TENSOR_TABLE when one is not. To be called once.
    Status finish(std::shared_ptr<Model>* out);

    uint64_t weight_bytes() const { return model_->weight_bytes(); }

private:
    struct Slot {
        TensorRead read;
        size_t rows_done = 0;
        bool whole() const { return rows_done == static_cast<size_t>(read.rows); }
    };

    Status place(Slot& slot, const uint8_t* bytes, size_t rows);

    std::shared_ptr<Model> model_;
    std::unordered_map<std::string, Slot> slots_;
    Slot* current_ = nullptr;
    std::vector<uint8_t> rest_;  // of the current one: less than can be placed by itself
};

}  // namespace onebit
