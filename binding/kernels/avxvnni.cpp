// AVX2 and AVX-VNNI (Alder Lake, Sapphire Rapids, Zen 5 and later): as avx2, but int8 products with vpdpbusd.
// Signs stay with the lookups: 70 instructions on three ports for 2048 weights, where vpdpbusd on sign masks would take
// 64 on two ports, beside making the masks. Run on a Xeon whose virtual machine hides the feature bit (ONEBIT_HIDDEN).
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

// vpdpbusd multiplies unsigned by signed bytes: w + 128, see dot_rows.inl.
constexpr int kDotOffset = 128;
constexpr int kDotTokens = 2;
using DotWeights = Bytes;
inline DotWeights dot_weights(Bytes w) { return _mm256_xor_si256(w, _mm256_set1_epi8(-128)); }
inline Ints dot_add(Ints sum, DotWeights w, Bytes a) {
#if defined(__GNUC__) && !defined(__clang__)
    // As in avx512vnni.cpp: 160 Gw/s with the intrinsic, 210 with this.
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(a));
    return sum;
#else
    return _mm256_dpbusd_avx_epi32(sum, w, a);
#endif
}

// Codes in upper bits are unsigned bytes up to 128, which vpdpbusd takes as they are.
#include "ternary_ints.inl"
constexpr int kTernaryFree = 4, kTernaryStrips = 2, kTernaryTokens = 4;
inline TernarySum ternary_dot(TernarySum sum, Bytes codes, Bytes a) { return dot_add(sum, codes, a); }

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

#define ONEBIT_KERNEL_SET kernels_avxvnni
#define ONEBIT_KERNEL_NAME "avxvnni"
#include "kernel_set.inl"

}  // namespace onebit
