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

// Ternary codes in our form, (n_rows, cols / 4): column c in bits 2 (c % 4) of byte c / 4, a code is the weight + 1. cols is a
// multiple of 4. All of these say ERR_TERNARY_CODE, with the first place, where a code is 3.
//
// Blocks of q2_0, q2_0_g128, tq1_0, tq2_0, ptq1_0 -> codes, and scale (n_rows, cols / block) f16 bits, which must be finite.
Status split_ternary(SourceType type, const uint8_t* source, size_t n_rows, size_t cols, uint8_t* codes, uint8_t* scale);
bool is_ternary(SourceType type);
// Bytes with one code of each of four rows, this row's at bits `shift` -> codes. source: (n_rows, cols).
Status gather_codes(const uint8_t* source, int shift, size_t n_rows, size_t cols, uint8_t* codes);
// Microsoft's I2_S as its x86 programs write it: of 128 elements, 32 bytes, of which byte p holds the elements p, 32 + p,
// 64 + p and 96 + p from the uppermost two bits down. source: whole blocks; the rows begin at its element `first`, < 128.
Status i2_s_codes(const uint8_t* source, size_t first, size_t n_rows, size_t cols, uint8_t* codes);

// q1_0 blocks -> sign (n_rows, cols / 8) with bit 1 = negative, scale (n_rows, cols / 128) f16 bits.
// A negative scale moves into the signs, so every scale written is >= 0.
Status split_q1_0(const uint8_t* source, size_t n_rows, size_t cols, uint8_t* sign, uint8_t* scale);

}  // namespace onebit
