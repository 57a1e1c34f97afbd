// AVX2 + FMA + F16C + SSE4.2: what nearly every x86 processor since 2013 (Intel) and 2015 (AMD) has.
//
// Signs: lookup_signs.inl with two vectors of 32 rows. Measured on one core of a busy 2-core Xeon (Emerald Rapids,
// AVX2 clock about 2.9 GHz), weights in L2: 195 Gw/s with 1 token, 205 with 4, 215 with 8 and more; with a scale per
// 128 columns 165 to 195. From DRAM with one token 14 GB/s = 112 Gw/s, where a plain sequential read got 12.5 GB/s.
// int8 matrices: 55 Gw/s in L2, 16 GB/s from DRAM.
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sets.h"

namespace onebit {
namespace {

#include "unrolled.inl"
#include "avx2_vectors.inl"

// Products of bytes with vpmaddubsw, which takes one unsigned operand: |w| and a with the sign of w. Two products
// add up to at most 2 * 128 * 127 < 2^15, so that nothing saturates; w = -128 is right too (|w| = 128 unsigned).
constexpr int kDotOffset = 0;
constexpr int kDotTokens = 2;
struct DotWeights {
    Bytes w, absolute;
};
inline DotWeights dot_weights(Bytes w) { return {w, _mm256_abs_epi8(w)}; }
inline Ints dot_add(Ints sum, DotWeights w, Bytes a) {
    const __m256i pairs = _mm256_maddubs_epi16(w.absolute, _mm256_sign_epi8(a, w.w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

using TernarySum = Bytes;
constexpr int kTernaryStrips = 2, kTernaryTokens = 4;
inline TernarySum ternary_zero() { return bytes_zero(); }
inline TernarySum ternary_dot(TernarySum sum, Bytes codes, Bytes a) {
    sum = words_add(sum, _mm256_maddubs_epi16(codes, a));
    add_now(sum);
    return sum;
}
inline Ints ternary_total(TernarySum sum) { return _mm256_madd_epi16(sum, _mm256_set1_epi16(1)); }
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
#include "crc32c_instruction.inl"

}  // namespace

#define ONEBIT_KERNEL_SET kernels_avx2
#define ONEBIT_KERNEL_NAME "avx2"
#include "kernel_set.inl"

}  // namespace onebit
