// NEON with the dot product instructions (ARMv8.2 FEAT_DotProd: Apple M1, Cortex-A76, Graviton 2 and later), which
// brings the CRC-32C instructions with it. Run under an emulator only: no figures yet.
#include <arm_neon.h>
#if !defined(_MSC_VER) || defined(__clang__)
#include <arm_acle.h>
#endif
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sets.h"

namespace onebit {
namespace {

#include "unrolled.inl"
#include "neon_vectors.inl"

constexpr int kDotOffset = 0;
constexpr int kDotTokens = 2;
using DotWeights = int8x16_t;
inline DotWeights dot_weights(Bytes w) { return vreinterpretq_s8_u8(w); }
inline Ints dot_add(Ints sum, DotWeights w, Bytes a) { return vdotq_s32(sum, w, vreinterpretq_s8_u8(a)); }
inline uint32_t crc_of_u64(uint32_t crc, uint64_t v) { return __crc32cd(crc, v); }
inline uint32_t crc_of_u8(uint32_t crc, uint8_t v) { return __crc32cb(crc, v); }

// Codes are signed bytes here: of those in upper bits only the ones times 4 multiply as they are.
#include "ternary_ints.inl"
constexpr int kTernaryFree = 2, kTernaryStrips = 2, kTernaryTokens = 8;
inline TernarySum ternary_dot(TernarySum sum, Bytes codes, Bytes a) { return dot_add(sum, dot_weights(codes), a); }

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

#define ONEBIT_KERNEL_SET kernels_neondot
#define ONEBIT_KERNEL_NAME "neondot"
#include "kernel_set.inl"

}  // namespace onebit
