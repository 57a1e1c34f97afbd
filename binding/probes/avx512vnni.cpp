// AVX-512 with VNNI: vpdpbusd, 512 bits wide.
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
inline Ints dot(Ints sum, Bytes w, Bytes a) { return _mm512_dpbusd_epi32(sum, w, a); }

#include "loops.inl"

}  // namespace

#define ONEBIT_PROBE_SET probes_avx512vnni
#define ONEBIT_PROBE_NAME "avx512vnni"
#include "probe_set.inl"

}  // namespace onebit
