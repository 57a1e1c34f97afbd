// The walk over a model's tensors: each is asked for by name, gets its place in the arena, and the way from the file's form
// to the one that the kernels want.
#pragma once

#include <string>
#include <vector>

#include "model/model.h"

namespace onebit {

// One tensor of the file and where it goes.
struct TensorRead {
    // What its numbers are: for whoever makes them (random_model.cpp).
    enum class Holds : uint8_t { floats, signs, group_scales, dense };
    // Brings rows [row, row + n) from the file's form (piece) to where and how the kernels want them. ERR_NOT_FINITE for a
    // norm or scale that is no number. Different rows may be placed at the same time.
    using Place = Status (*)(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);

    std::string name;
    Holds holds = Holds::floats;
    Place place = nullptr;
    int rows = 1, cols = 0;
    FileType type = FileType::f32;
    size_t row_bytes = 0;  // in the file
    size_t stride = 0;     // bytes of a row (or of a block of rows) where it goes
    void* destination = nullptr;
    uint64_t offset = 0;   // in the file
    uint32_t crc32c = 0;

    uint64_t file_bytes() const { return static_cast<uint64_t>(rows) * row_bytes; }
};

// A model without weights: arena.used() says how many bytes they will take, *reads what they are. contents has a kind for
// every matrix, and, where it compares, every tensor; none may be left over. ERR_CONFIG, ERR_TENSOR_TABLE.
Status new_model(const Config& config, const Contents& contents, bool compares, Activations activations,
                 const KernelSet* kernels, std::vector<TensorRead>* reads, std::shared_ptr<Model>* out);

// Reserves the arena and gives every tensor its place in it. ERR_OUT_OF_MEMORY.
Status place_tensors(Model* model, const Contents& contents, bool compares, std::vector<TensorRead>* reads);

}  // namespace onebit
