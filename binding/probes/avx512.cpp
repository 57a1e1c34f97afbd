// AVX-512 without VNNI: int8 products take vpmaddubsw, vpmaddwd and an addition.
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

#include "probes/probe_set.h"

namespace onebit {
namespace {

#include "kernels/unrolled.inl"
#include "kernels/avx512_vectors.inl"

#define ONEBIT_REGISTER "v"
constexpr int kAccumulators = 12;  // of 32 registers; Clang 22 takes no more than 16 of them here, and has others besides
inline Ints dot(Ints sum, Bytes w, Bytes a) {
    return _mm512_add_epi32(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(w, a), _mm512_set1_epi16(1)));
}

#include "loops.inl"

}  // namespace

#define ONEBIT_PROBE_SET probes_avx512
#define ONEBIT_PROBE_NAME "avx512"
#include "probe_set.inl"

}  // namespace onebit
