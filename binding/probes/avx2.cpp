// AVX2: int8 products take vpmaddubsw, vpmaddwd and an addition.
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "probes/probe_set.h"

namespace onebit {
namespace {

#include "kernels/unrolled.inl"
#include "kernels/avx2_vectors.inl"

#define ONEBIT_REGISTER "x"
constexpr int kAccumulators = 10;  // of 16 registers
inline Ints dot(Ints sum, Bytes w, Bytes a) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), _mm256_set1_epi16(1)));
}

#include "loops.inl"

}  // namespace

#define ONEBIT_PROBE_SET probes_avx2
#define ONEBIT_PROBE_NAME "avx2"
#include "probe_set.inl"

}  // namespace onebit
