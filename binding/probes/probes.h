// What this machine can do at best, measured: the denominators of a benchmark. Each figure is the best of several
// repetitions on `threads` threads of the pool, all of them at once.
#pragma once

#include <atomic>
#include <vector>

#include "kernels/kernels.h"
#include "system/pool.h"
#include "system/status.h"

namespace onebit {

constexpr uint64_t kDefaultDramBytes = uint64_t{1} << 30;

struct ProbeOptions {
    const KernelSet* kernels = nullptr;  // the instruction set whose limits are wanted
    uint64_t dram_bytes = kDefaultDramBytes;
    bool dram = true, int8 = true, lookup = true, f32 = true;
    double least_seconds = 0.02;                // of one repetition: what waking a thread costs must not show
    const std::atomic<bool>* cancel = nullptr;  // may be null; looked at every few milliseconds
};

// One way of reading memory from start to end, threads side by side in contiguous parts.
struct DramRead {
    const char* pages;  // "small": 4 KB; "huge": 2 MB, where the system gives them
    const char* loop;   // "plain", "prefetch_near", "prefetch_both"
    double gbps;        // 10^9 bytes per second
};

struct Peaks {
    std::vector<DramRead> dram;
    double dram_gbps = 0;        // the best of them
    double int8_peak_gmacs = 0;  // 10^9 int8 multiply-adds per second, operands in registers
    double lookup_peak_gws = 0;  // 10^9 weights x tokens per second of the best sign product, all in the first-level cache
    double f32_peak_gmacs = 0;   // 10^9 f32 multiply-adds per second, operands in registers
};

// ERR_OUT_OF_MEMORY, ERR_ABORTED.
Status measure_peaks(const ProbeOptions& options, Pool& pool, Peaks* out);

}  // namespace onebit
