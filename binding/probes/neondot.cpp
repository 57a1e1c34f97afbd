// NEON with the dot product instructions: sdot.
#include <arm_neon.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "probes/probe_set.h"

namespace onebit {
namespace {

#include "kernels/unrolled.inl"
#include "kernels/neon_vectors.inl"

#define ONEBIT_REGISTER "w"
constexpr int kAccumulators = 16;  // of 32 registers
inline Ints dot(Ints sum, Bytes w, Bytes a) { return vdotq_s32(sum, vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(a)); }

#include "loops.inl"

}  // namespace

#define ONEBIT_PROBE_SET probes_neondot
#define ONEBIT_PROBE_NAME "neondot"
#include "probe_set.inl"

}  // namespace onebit
