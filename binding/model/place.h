// The ways of TensorRead::place.
#pragma once

#include "model/bind.h"

namespace onebit {

// Rows as they are, `stride` bytes apart; the second one refuses an f32 that is not finite.
Status place_copied(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
Status place_finite(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
// (rows, cols / 8) bytes -> blocks of the kernel set. row is a multiple of sign_row_block, and n is one too unless the
// tensor ends there.
Status place_sign_blocks(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
// (rows, groups) f16 that must be finite: as they are, or -> (blocks, groups, rows of a block).
Status place_scale_rows(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);
Status place_scale_blocks(const KernelSet&, const TensorRead& read, const uint8_t* piece, size_t row, size_t n);

}  // namespace onebit
