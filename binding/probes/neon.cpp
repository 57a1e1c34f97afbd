// NEON: int8 products take smull, smlal2 and sadalp.
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
inline Ints dot(Ints sum, Bytes w, Bytes a) {
    const int8x16_t x = vreinterpretq_s8_u8(w), y = vreinterpretq_s8_u8(a);
    return vpadalq_s16(sum, vmlal_high_s8(vmull_s8(vget_low_s8(x), vget_low_s8(y)), x, y));
}

#include "loops.inl"

}  // namespace

#define ONEBIT_PROBE_SET probes_neon
#define ONEBIT_PROBE_NAME "neon"
#include "probe_set.inl"

}  // namespace onebit
