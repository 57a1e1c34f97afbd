// AVX-512 F, BW, DQ, VL and VNNI (Ice Lake, Zen 4 and later): as avx512, but int8 products with vpdpbusd, of which a
// Zen 4 core does 230 G multiply-adds a second: dot_rows.inl has what is reached.
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

// vpdpbusd multiplies unsigned by signed bytes: w + 128, see dot_rows.inl.
constexpr int kDotOffset = 128;
constexpr int kDotTokens = 4;
using DotWeights = Bytes;
inline DotWeights dot_weights(Bytes w) { return _mm512_xor_si512(w, _mm512_set1_epi8(-128)); }
inline Ints dot_add(Ints sum, DotWeights w, Bytes a) {
#if defined(__GNUC__) && !defined(__clang__)
    // GCC 12 copies every sum to another register and back around the intrinsic: 16 tokens' rows of 576 columns do 330 Gw/s
    // with it and 380 with this (one Zen 5 core).
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
    return sum;
#else
    return _mm512_dpbusd_epi32(sum, w, a);
#endif
}

// Codes in upper bits are unsigned bytes up to 128, which vpdpbusd takes as they are.
#include "ternary_ints.inl"
constexpr int kTernaryFree = 4, kTernaryStrips = 4, kTernaryTokens = 6;
inline TernarySum ternary_dot(TernarySum sum, Bytes codes, Bytes a) { return dot_add(sum, codes, a); }

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

#define ONEBIT_KERNEL_SET kernels_avx512vnni
#define ONEBIT_KERNEL_NAME "avx512vnni"
#define ONEBIT_I8_MANY {quantize, permute_bytes, permute_build, sign_permute, grouped_permute, kPermuteCols}
#include "kernel_set.inl"

}  // namespace onebit
