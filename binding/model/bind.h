// The walk over a model's tensors, in the order of src/config/architecture.ts (tensorTable): gives every tensor its place in
// the arena, its size in the file, and the way from one to the other.
#pragma once

#include <string>
#include <vector>

#include "model/model.h"

namespace onebit {

// One tensor of the file and where it goes.
struct TensorRead {
    enum class Form : uint8_t {
        floats,             // f32 (cols): copied, must be finite
        sign_blocks,        // (rows, cols/8) bytes -> blocks of the kernel set
        sign_rows,          // (rows, cols/8) bytes -> rows of padded(cols, 16) / 8 bytes
        group_scale_blocks, // (rows, cols) f16 -> (blocks, cols, rows of a block), must be finite
        group_scale_rows,   // (rows, cols) f16: copied, must be finite
        dense_rows,         // (rows, cols) elements -> rows of padded(cols, 64)
    };
    std::string name;
    Form form = Form::floats;
    int rows = 1, cols = 0;
    size_t element_bytes = 4;  // dense_rows
    void* destination = nullptr;
    DType dtype = DType::f32;  // dense_rows

    size_t row_bytes() const;  // in the file
    uint64_t file_bytes() const { return static_cast<uint64_t>(rows) * row_bytes(); }
};

// Fills the model's pointers with pieces of its arena and appends one TensorRead a tensor. Called twice: first with an
// arena that only counts, then to place.
void bind_tensors(Model* model, std::vector<TensorRead>* reads);

// A model without weights: arena.used() says how many bytes they will take, *reads what they are. config was checked.
std::shared_ptr<Model> new_model(const Config& config, Activations activations, const KernelSet* kernels,
                                 std::vector<TensorRead>* reads);

// Reserves the arena and gives every tensor its place in it. ERR_OUT_OF_MEMORY.
Status place_tensors(Model* model, std::vector<TensorRead>* reads);

// Brings `n` rows from `row` on from the file's form (piece) to where and how the kernels want them. row is a multiple
// of sign_row_block, and n is one too unless the tensor ends there; a tensor of floats comes whole (row 0, n 1).
// Different rows may be placed at the same time (place.cpp). ERR_NOT_FINITE for a norm or scale that is no number.
Status place_rows(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);

}  // namespace onebit
