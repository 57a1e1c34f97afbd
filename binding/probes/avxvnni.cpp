// AVX2 and AVX-VNNI: vpdpbusd, 256 bits wide.
#include <immintrin.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "probes/probe_set.h"

namespace onebit {
namespace {

#include "kernels/avx2_vectors.inl"

#define ONEBIT_REGISTER "x"
constexpr int kDotMacs = 32;
constexpr int kAccumulators = 10;  // of 16 registers
inline Bytes int8_operand(int8_t x) { return _mm256_set1_epi8(x); }
inline Floats f32_operand(float x) { return _mm256_set1_ps(x); }
inline Ints dot(Ints sum, Bytes w, Bytes a) { return _mm256_dpbusd_avx_epi32(sum, w, a); }

#include "loops.inl"

}  // namespace

#define ONEBIT_PROBE_SET probes_avxvnni
#define ONEBIT_PROBE_NAME "avxvnni"
#include "probe_set.inl"

}  // namespace onebit
