// AVX-512 F, BW, DQ, VL without VNNI (Skylake-X and its family).
//
// Signs: lookup_signs.inl with one vector of 64 rows; of several tokens, on AMD's processors (dispatch.cpp),
// permute_signs.inl. Byte shuffles measured on one core of a busy 2-core Xeon (Emerald Rapids), weights in L2: 260 Gw/s with 1 token, 270 with 4, 280 with 8 and more; from DRAM with one token 15.4 GB/s = 123 Gw/s,
// where a plain sequential read got 12.5 GB/s.
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about the deliberately undefined registers inside its own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sets.h"

namespace onebit {
namespace {

#include "unrolled.inl"
#include "avx512_vectors.inl"

// Products of bytes with vpmaddubsw, which takes one unsigned operand: |w|, and a negated where w is negative. Two
// products add up to at most 2 * 128 * 127 < 2^15, so that nothing saturates; w = -128 is right too.
constexpr int kDotOffset = 0;
constexpr int kDotTokens = 4;
struct DotWeights {
    Bytes absolute;
    __mmask64 negative;
};
inline DotWeights dot_weights(Bytes w) { return {_mm512_abs_epi8(w), _mm512_movepi8_mask(w)}; }
inline Ints dot_add(Ints sum, DotWeights w, Bytes a) {
    const __m512i signed_a = _mm512_mask_sub_epi8(a, w.negative, _mm512_setzero_si512(), a);
    const __m512i pairs = _mm512_maddubs_epi16(w.absolute, signed_a);
    return _mm512_add_epi32(sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}

using TernarySum = Bytes;
constexpr int kTernaryStrips = 2, kTernaryTokens = 8;
inline TernarySum ternary_zero() { return bytes_zero(); }
inline TernarySum ternary_dot(TernarySum sum, Bytes codes, Bytes a) {
    sum = words_add(sum, _mm512_maddubs_epi16(codes, a));
    add_now(sum);
    return sum;
}
inline Ints ternary_total(TernarySum sum) { return _mm512_madd_epi16(sum, _mm512_set1_epi16(1)); }
#include "ternary_words.inl"

#include "lanes_rows.inl"
#include "lanes_hadamard.inl"
#include "lanes_matrices.inl"
#include "lanes_attend.inl"
#include "lanes_delta.inl"
#include "lookup_signs.inl"
#include "permute_signs.inl"
#include "popcount_signs.inl"
#include "dot_rows.inl"
#include "ternary_codes.inl"
#include "crc32c_instruction.inl"

}  // namespace

#define ONEBIT_KERNEL_SET kernels_avx512
#define ONEBIT_KERNEL_NAME "avx512"
#define ONEBIT_I8_MANY {quantize, permute_bytes, permute_build, sign_permute, grouped_permute, kPermuteCols}
#include "kernel_set.inl"

}  // namespace onebit
