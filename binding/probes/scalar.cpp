// The probes of every machine: plain loops, as the compiler makes them for the processor family's oldest member, which
// is also how kernels/scalar.cpp is made.
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "probes/probe_set.h"

namespace onebit {
namespace {

inline void prefetch(const uint8_t* p) {
#if defined(__GNUC__)
    __builtin_prefetch(p, 0, 3);
#else
    (void)p;
#endif
}

template <int ahead>
inline uint64_t read_memory(const uint8_t* p, size_t bytes) {
    uint64_t sums[8] = {};
    for (const uint8_t* end = p + bytes; p < end; p += 64) {
        if constexpr (ahead > 0) prefetch(p + ahead);
        for (int i = 0; i < 8; i++) {
            uint64_t word;
            memcpy(&word, p + i * 8, sizeof word);
            sums[i] += word;
        }
    }
    uint64_t sum = 0;
    for (uint64_t s : sums) sum += s;
    return sum;
}

uint64_t read_plain(const uint8_t* p, size_t bytes) { return read_memory<0>(p, bytes); }
uint64_t read_prefetch_near(const uint8_t* p, size_t bytes) { return read_memory<4096>(p, bytes); }
uint64_t read_prefetch_both(const uint8_t* p, size_t bytes) { return read_memory<2048>(p, bytes); }

// The plain sum of products over two rows in the first-level cache: with loads, because the loop of the kernel has them
// and the compiler chooses its own instructions for both.
uint64_t int8_macs(uint64_t count, uint64_t* sink) {
    constexpr int kCols = 4096;
    int8_t w[kCols], a[kCols];
    memset(w, 3, sizeof w);
    memset(a, 5, sizeof a);
    const int8_t* volatile again = w;  // read anew each time: the row may have changed, for all the compiler knows
    const uint64_t rounds = (count + kCols - 1) / kCols;
    for (uint64_t round = 0; round < rounds; round++) {
        const int8_t* row = again;
        int sum = 0;
        for (int c = 0; c < kCols; c++) sum += row[c] * a[c];
        *sink += static_cast<uint64_t>(sum);
    }
    return rounds * kCols;
}

// A product and a sum: this set's fused multiply-add is put together from double arithmetic, which is slower.
uint64_t f32_macs(uint64_t count, uint64_t* sink) {
    constexpr int kSums = 48;  // 12 vectors where the compiler makes vectors of four
    float sums[kSums];
    for (float& sum : sums) sum = 1.0f;
    const volatile float factor_source = 0.5f;
    const float factor = factor_source;
    const uint64_t rounds = (count + kSums - 1) / kSums;
    for (uint64_t round = 0; round < rounds; round++) {
        for (float& sum : sums) sum = sum * factor + 1.0f;
    }
    for (const float sum : sums) {
        uint32_t bits;
        memcpy(&bits, &sum, sizeof bits);
        *sink += bits;
    }
    return rounds * kSums;
}

}  // namespace

#define ONEBIT_PROBE_SET probes_scalar
#define ONEBIT_PROBE_NAME "scalar"
#include "probe_set.inl"

}  // namespace onebit
