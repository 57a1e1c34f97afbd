// Tensor data from one number format to another: what importing a model needs. All formats are little-endian; a row
// is `cols` consecutive elements. The caller guarantees sizes (napi/convert.cpp checks them); the values are checked
// here, because a NaN that gets into a file would only be met when somebody talks to the model.
#pragma once

#include <cstddef>
#include <cstdint>

#include "system/status.h"

namespace onebit {

// What sources store, in the order of kBlockFormats (blocks.h): floats, and GGUF's blocks.
enum class SourceType : uint8_t {
    f32, f16, bf16, q8_0, q4_0, q4_1, q1_0, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, q2_0, q2_0_g128, tq1_0, tq2_0,
    ptq1_0
};

bool source_type_from_name(const char* name, SourceType* out);

// Elements that are stored together; a row has a whole number of blocks.
size_t block_elements(SourceType type);
size_t block_bytes(SourceType type);

// source (rows, cols) -> out (rows, cols). ERR_NOT_FINITE names the first element that is NaN or infinite.
Status rows_to_f32(SourceType type, const uint8_t* source, size_t rows, size_t cols, float* out);

// The same without looking at the values: for what is given to one of those below, which do.
void decode_rows(SourceType type, const uint8_t* source, size_t rows, size_t cols, float* out);

// ERR_NOT_FINITE where a value is NaN, infinite or above what the format can hold.
Status rows_to_f16(const float* rows, size_t n_rows, size_t cols, uint8_t* out);
Status rows_to_bf16(const float* rows, size_t n_rows, size_t cols, uint8_t* out);

// out (n_rows, cols) int8 in -127..127, scales (n_rows) = max|row| / 127; a row of zeros has scale 0.
Status rows_to_q8(const float* rows, size_t n_rows, size_t cols, int8_t* out, float* scales);

// out (n_rows, cols / 8): least significant bit first, bit 1 = negative; both zeros count as positive.
Status pack_signs(const float* rows, size_t n_rows, size_t cols, uint8_t* out);

// q1_0 blocks -> sign (n_rows, cols / 8) with bit 1 = negative, scale (n_rows, cols / 128) f16 bits.
// A negative scale moves into the signs, so every scale written is >= 0.
Status split_q1_0(const uint8_t* source, size_t n_rows, size_t cols, uint8_t* sign, uint8_t* scale);

}  // namespace onebit
