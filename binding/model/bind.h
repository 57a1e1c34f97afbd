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
    enum class Holds : uint8_t { floats, signs, group_scales, ternary, dense };
    // Brings rows [row, row + n) from the file's form (piece) to where and how the kernels want them. ERR_NOT_FINITE for a
    // norm or scale that is no number. Different rows may be placed at the same time.
    using Place = Status (*)(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);

    Holds holds;
    Place place;
    int rows, cols;
    FileType type;
    size_t row_bytes;  // in the file
    size_t stride;     // bytes of a row (or of a block of rows) where it goes
    int block_rows = 1;  // group scales: rows whose scales lie together
    std::string name = {};
    void* destination = nullptr;
    uint64_t offset = 0;   // in the file
    uint32_t crc32c = 0;

    uint64_t file_bytes() const { return static_cast<uint64_t>(rows) * row_bytes; }
};

// The ways of TensorRead::place (place.cpp).
//
// Rows as they are, `stride` bytes apart; the second one refuses an f32 that is not finite.
Status place_copied(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
Status place_finite(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
// Rows of f16 that must be finite -> f32.
Status place_widened(const KernelSet& kernels, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
// (rows, cols) f32 that must be finite -> (cols, stride / 4): each column becomes a row.
Status place_transposed(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
// (rows, cols / 8) bytes -> blocks of the kernel set. row is a multiple of sign_row_block, and n is one too unless the
// tensor ends there.
Status place_sign_blocks(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
// (rows, groups) f16 that must be finite -> (blocks, groups, block_rows).
Status place_scales(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
// (rows, cols / 4) bytes of ternary codes: as they are, or -> blocks of kTernaryRows. ERR_TERNARY_CODE for a 3.
Status place_ternary_rows(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
Status place_ternary_blocks(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);

// What a model's tensors are compared with; nothing, for a model that no file holds.
struct TensorsOfFile {
    const std::vector<TensorSlot>* slots = nullptr;
    uint64_t file_bytes = 0;
};

// A model without weights: arena.used() says how many bytes they will take, *reads what they are. There must be a kind for
// every matrix, and a slot for every tensor; none may be left over. ERR_CONFIG, ERR_TENSOR_TABLE.
Status new_model(const Config& config, const std::vector<NamedKind>& kinds, TensorsOfFile file, Activations activations,
                 const KernelSet* kernels, std::vector<TensorRead>* reads, std::shared_ptr<Model>* out);

// Reserves the arena and gives every tensor its place in it. ERR_OUT_OF_MEMORY.
Status place_tensors(Model* model, const std::vector<NamedKind>& kinds, TensorsOfFile file, std::vector<TensorRead>* reads);

}  // namespace onebit
