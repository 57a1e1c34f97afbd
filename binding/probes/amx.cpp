// AMX: tdpbssd, 16 lines by 64 bytes by 16 lines.
#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "probes/probe_set.h"

namespace onebit {
namespace {

#include "kernels/unrolled.inl"
#include "kernels/amx_tiles.inl"

uint64_t int8_macs(uint64_t count, uint64_t* sink) {
    constexpr int kTile = 16 * 64;
    alignas(64) int8_t bytes[kTile];
    memset(bytes, 3, sizeof bytes);
    AmxTiles tiles;
    tiles.configure(16, 16);
    unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA { tiles.zero<i.value>(); });
    unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA { tiles.load<4 + i.value>(bytes, 64); });
    constexpr uint64_t kEach = uint64_t{kTile} * 16 * 4;
    const uint64_t rounds = (count + kEach - 1) / kEach;
    for (uint64_t round = 0; round < rounds; round++) {
        unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA { tiles.dot<i.value, 4 + i.value / 2, 6 + i.value % 2>(); });
    }
    unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA {
        tiles.store<i.value>(bytes, 64);
        *sink += static_cast<uint64_t>(bytes[0]);
    });
    tiles.release();
    return rounds * kEach;
}

}  // namespace

const ProbeSet probes_amx = {
    .name = "amx",
    .read_plain = nullptr,
    .read_prefetch_near = nullptr,
    .read_prefetch_both = nullptr,
    .int8_macs = int8_macs,
    .f32_macs = nullptr,
};

}  // namespace onebit
