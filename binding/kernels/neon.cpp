// NEON as every aarch64 processor has it (ARMv8.0). Run under an emulator only: no figures yet.
#include <arm_neon.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sets.h"

namespace onebit {
namespace {

#include "unrolled.inl"
#include "neon_vectors.inl"

// Products of bytes: two of at most 128 * 127 add up in 16 bits, then pairs widen.
constexpr int kDotOffset = 0;
constexpr int kDotTokens = 2;
using DotWeights = int8x16_t;
inline DotWeights dot_weights(Bytes w) { return vreinterpretq_s8_u8(w); }
inline Ints dot_add(Ints sum, DotWeights w, Bytes activations) {
    const int8x16_t a = vreinterpretq_s8_u8(activations);
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(a));
    return vpadalq_s16(sum, vmlal_s8(low, vget_high_s8(w), vget_high_s8(a)));
}

using TernarySum = int16x8_t;
constexpr int kTernaryStrips = 2, kTernaryTokens = 4;
inline TernarySum ternary_zero() { return vdupq_n_s16(0); }
inline TernarySum ternary_dot(TernarySum sum, Bytes codes, Bytes activations) {
    const int8x16_t w = vreinterpretq_s8_u8(codes), a = vreinterpretq_s8_u8(activations);
    return vaddq_s16(sum, vpaddq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(a)), vmull_high_s8(w, a)));
}
inline Ints ternary_total(TernarySum sum) { return vpaddlq_s16(sum); }
#include "ternary_words.inl"

#include "lanes_rows.inl"
#include "lanes_hadamard.inl"
#include "lanes_matrices.inl"
#include "lanes_attend.inl"
#include "lanes_delta.inl"
#include "lookup_signs.inl"
#include "popcount_signs.inl"
#include "dot_rows.inl"
#include "ternary_codes.inl"
#include "crc32c_tables.inl"

}  // namespace

#define ONEBIT_KERNEL_SET kernels_neon
#define ONEBIT_KERNEL_NAME "neon"
#include "kernel_set.inl"

}  // namespace onebit
