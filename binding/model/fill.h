// A model whose numbers come piece by piece from whoever has them, in the forms that a .obt file has them in: for models of
// other formats, which are converted on their way into memory and never written.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "convert/convert.h"
#include "model/bind.h"
#include "system/pool.h"

namespace onebit {

// A matrix or a vector as a file of another format holds it: its rows one after another, in the blocks of a type.
struct StoredTensor {
    std::string name;   // ours, without the tensor's part: layers.0.wq, norm, layers.0.wq.bias
    std::string label;  // theirs, for messages
    SourceType type;
    size_t file;  // which of the paths
    uint64_t offset;
};

struct StoredOptions {
    std::vector<std::string> paths;
    const std::atomic<bool>* cancel = nullptr;
    // How many bytes of weights are there by now. Called on any thread, one call at a time.
    std::function<void(uint64_t)> progress;
};

class Filling {
public:
    // Reserves the memory. ERR_CONFIG, ERR_TENSOR_TABLE, ERR_OUT_OF_MEMORY.
    static Status create(const Config& config, const std::vector<NamedKind>& kinds, Activations activations,
                         const KernelSet* kernels, std::unique_ptr<Filling>* out);

    // The next bytes of a tensor; those of one come in order, and before another begins it is whole.
    // ERR_TENSOR_TABLE when it is no tensor of this model, is there already, or is left half; ERR_TENSOR_SIZE when there are
    // too many bytes; ERR_NOT_FINITE.
    Status write(const std::string& name, const uint8_t* bytes, size_t count);

    // Reads whole tensors from their files, converts their numbers and puts them in their places, on all threads of the pool:
    // floats of any type into dense matrices and vectors, q1_0 into signs with group scales. No tensor may be half there.
    // ERR_TENSOR_TABLE for one that cannot be made so or is there already, ERR_NOT_FINITE, ERR_TRUNCATED, ERR_READ, ERR_ABORTED.
    Status convert(const std::vector<StoredTensor>& tensors, const StoredOptions& options, Pool& pool);

    // Every tensor is whole. ERR_TENSOR_TABLE when one is not. To be called once.
    Status finish(std::shared_ptr<Model>* out);

    uint64_t weight_bytes() const { return model_->weight_bytes(); }

private:
    struct Slot {
        TensorRead read;
        size_t rows_done = 0;
        bool whole() const { return rows_done == static_cast<size_t>(read.rows); }
    };

    // The places of one stored tensor.
    struct Target {
        const StoredTensor* stored;
        Slot* rows;
        Slot* scales = nullptr;  // of q8 rows, or of groups of signs
        size_t elements, cols;   // of the matrix or vector
    };

    Status place(Slot& slot, const uint8_t* bytes, size_t rows);
    Slot* slot_of(const std::string& name);
    Status target_of(const StoredTensor& stored, Target* out);
    class Converter;

    std::shared_ptr<Model> model_;
    std::unordered_map<std::string, Slot> slots_;
    Slot* current_ = nullptr;
    std::vector<uint8_t> rest_;  // of the current one: less than can be placed by itself
};

}  // namespace onebit
