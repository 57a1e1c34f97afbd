// AVX2 and AVX-VNNI: vpdpbusd, 256 bits wide.
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
constexpr int kAccumulators = 12;  // of 16 registers; 10 are latency times rate, but leave no room for one that comes late
inline Ints dot(Ints sum, Bytes w, Bytes a) { return _mm256_dpbusd_avx_epi32(sum, w, a); }

#include "loops.inl"

}  // namespace

#define ONEBIT_PROBE_SET probes_avxvnni
#define ONEBIT_PROBE_NAME "avxvnni"
#include "probe_set.inl"

}  // namespace onebit
