#include "probes/probes.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "system/memory.h"
#include "probes/available_memory.h"
#include "probes/probe_set.h"

#if !defined(_WIN32)
#include <sys/mman.h>
#endif

namespace onebit {

namespace {

using Clock = std::chrono::steady_clock;

constexpr int kRepetitions = 7;
constexpr int kMostMissed = 20;  // runs that may be made again because a thread was missing
// What is read between two looks at the cancel flag.
constexpr size_t kReadPiece = size_t{16} << 20;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Memory that gives itself back.
class Pages {
public:
    Pages(size_t bytes, bool huge) : bytes_(bytes), data_(static_cast<uint8_t*>(allocate_pages(bytes, huge))) {
#if defined(MADV_NOHUGEPAGE)
        if (data_ && !huge) madvise(data_, bytes, MADV_NOHUGEPAGE);  // some systems give huge pages unasked
#endif
    }
    ~Pages() { free_pages(data_, bytes_); }
    Pages(const Pages&) = delete;
    Pages& operator=(const Pages&) = delete;
    uint8_t* data() const { return data_; }

private:
    size_t bytes_;
    uint8_t* data_;
};

class Prober {
public:
    Prober(const ProbeOptions& options, Pool& pool)
        : options_(options), pool_(pool), probes_(probe_set(*options.kernels)) {}

    Status dram(Peaks* peaks) {
        const auto threads = static_cast<size_t>(pool_.threads());
        const size_t part = static_cast<size_t>(options_.dram_bytes) / threads / 4096 * 4096;
        if (Status status = check_available(part * threads, "Measuring how fast memory can be read"); !status.ok()) {
            return status;
        }
        for (const bool huge : {false, true}) {
            const Pages pages(part * threads, huge);
            if (!pages.data()) return error("ERR_OUT_OF_MEMORY", "The system has no memory to measure its speed with.");
            // Each thread makes its own part real: an untouched page is not in DRAM, and on several sockets the one
            // that touches a page first has it near.
            pool_.run(static_cast<int>(threads), [&](int task) {
                for (size_t at = 0; at < part && !cancelled(); at += kReadPiece) {
                    std::memset(pages.data() + static_cast<size_t>(task) * part + at, task + 1,
                                std::min(kReadPiece, part - at));
                }
            });
            read_all(pages.data(), part, huge ? "huge" : "small", peaks);
            if (cancelled()) return {};
        }
        for (const DramRead& read : peaks->dram) peaks->dram_gbps = std::max(peaks->dram_gbps, read.gbps);
        return {};
    }

    double int8() {
        return rate([&](uint64_t count, uint64_t* sink) { return probes_.int8_macs(count, sink); });
    }
    double f32() {
        return rate([&](uint64_t count, uint64_t* sink) { return probes_.f32_macs(count, sink); });
    }

    // The kernels themselves, on a few blocks of rows that never leave the first-level cache (with many tokens their tables
    // come from the second, which costs less than few tokens cost). How many tokens and columns serve them best is their own business, so a few
    // are tried.
    Status lookup(double* out) {
        *out = 0;
        const KernelSet& kernels = *options_.kernels;
        const struct {
            const SignProduct& product;
            int cols, tokens;
        } tries[] = {{kernels.i8, 512, 1},       {kernels.i8, 512, 4},        {kernels.i8, 1024, 1},
                     {kernels.i8, 1024, 8},      {kernels.i8_many, 192, 4},   {kernels.i8_many, 192, 8},
                     {kernels.i8_many, 192, 16}, {kernels.i8_many, 192, 32}, {kernels.i8_many, 512, 64}};
        for (const auto& [product, cols, tokens] : tries) {
            double gws = 0;
            if (Status status = lookup(product, cols, tokens, &gws); !status.ok()) return status;
            *out = std::max(*out, gws);
        }
        return {};
    }

    bool cancelled() const { return options_.cancel && options_.cancel->load(std::memory_order_relaxed); }

private:
    void read_all(const uint8_t* data, size_t part, const char* pages, Peaks* peaks) {
        const struct {
            const char* name;
            uint64_t (*read)(const uint8_t*, size_t);
        } loops[] = {{"plain", probes_.read_plain},
                     {"prefetch_near", probes_.read_prefetch_near},
                     {"prefetch_both", probes_.read_prefetch_both}};
        double best[3] = {};
        // In turns, so that a disturbance does not hit one way of reading only.
        int repetitions[3] = {};
        missed_ = 0;
        while (*std::min_element(repetitions, repetitions + 3) < kRepetitions) {
            for (int l = 0; l < 3; ++l) {
                const auto read = [&](int task) {
                    const uint8_t* from = data + static_cast<size_t>(task) * part;
                    for (size_t at = 0; at < part && !cancelled(); at += kReadPiece) {
                        keep(loops[l].read(from + at, std::min(kReadPiece, part - at)));
                    }
                };
                const double seconds = run_on_all(read, &repetitions[l]);
                if (cancelled()) return;
                best[l] = std::max(best[l], static_cast<double>(part) * pool_.threads() / seconds / 1e9);
            }
        }
        for (int l = 0; l < 3; ++l) peaks->dram.push_back({pages, loops[l].name, best[l]});
    }

    // Runs body(task) once on every thread, and counts into *repetition unless one thread has done the work of another,
    // which had not woken yet, or which the pool leaves out for a while because its core is taken. Returns seconds.
    template <class Body>
    double run_on_all(const Body& body, int* repetition) {
        const int threads = pool_.threads();
        std::atomic<uint64_t> twice{0};
        std::vector<std::atomic<int>> done(static_cast<size_t>(threads));
        const auto start = Clock::now();
        pool_.run(threads, [&](int task, int thread) {
            body(task);
            if (done[static_cast<size_t>(thread)].fetch_add(1) > 0) twice.store(1);
        });
        const double seconds = seconds_since(start);
        if (twice.load() == 0 || ++missed_ > kMostMissed) ++*repetition;
        return seconds;
    }

    // 10^9 per second of work(count, sink), which does at least `count` somethings and returns how many, on all
    // threads.
    template <class Work>
    double rate(const Work& work) {
        uint64_t count = 1 << 16;
        double best = 0;
        missed_ = 0;
        for (int repetition = 0; repetition < kRepetitions && !cancelled();) {
            std::atomic<uint64_t> done{0};
            int counted = 0;
            const auto one = [&](int) {
                uint64_t sink = 0;
                done.fetch_add(work(count, &sink));
                keep(sink);
            };
            const double seconds = run_on_all(one, &counted);
            if (seconds < options_.least_seconds) {
                count *= 2;  // warms the core up, too
                continue;
            }
            best = std::max(best, static_cast<double>(done.load()) / seconds / 1e9);
            repetition += counted;
        }
        return best;
    }

    Status lookup(const SignProduct& product, int cols, int tokens, double* out) {
        const KernelSet& kernels = *options_.kernels;
        // 192 rows: a multiple of what every set takes at a time.
        const int block = kernels.sign_row_block, blocks = std::max(1, 192 / block), rows = block * blocks;
        const size_t bits_bytes = round64(kernels.sign_block_bytes(cols) * static_cast<size_t>(blocks));
        const size_t stride = round64(product.table_bytes(cols));
        const size_t table_bytes = stride * static_cast<size_t>(tokens);
        const size_t out_bytes = round64(static_cast<size_t>(rows * tokens) * sizeof(int32_t));
        const size_t each = bits_bytes + table_bytes + out_bytes;
        const auto threads = static_cast<size_t>(pool_.threads());
        const std::unique_ptr<uint8_t[]> memory(new (std::nothrow) uint8_t[each * threads + 64]);
        if (!memory) return error("ERR_OUT_OF_MEMORY", "The system has no memory to measure table lookups with.");
        uint8_t* const base = memory.get() + (64 - reinterpret_cast<uintptr_t>(memory.get()) % 64) % 64;
        int8_t q[1024];
        for (int c = 0; c < 1024; ++c) q[c] = static_cast<int8_t>(c * 37 % 255 - 127);
        for (size_t thread = 0; thread < threads; ++thread) {
            uint8_t* place = base + each * thread;
            for (size_t i = 0; i < bits_bytes; ++i) place[i] = static_cast<uint8_t>(i * 167 + i / 256 * 29);
            for (int t = 0; t < tokens; ++t)
                product.table_build(place + bits_bytes + stride * static_cast<size_t>(t), q, cols);
        }
        const uint64_t weights =
            static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols) * static_cast<uint64_t>(tokens);
        std::atomic<size_t> next{0};
        *out = rate([&](uint64_t count, uint64_t* sink) {
            uint8_t* place = base + each * (next.fetch_add(1) % threads);
            auto* sums = reinterpret_cast<int32_t*>(place + bits_bytes + table_bytes);
            const uint64_t calls = count / weights + 1;
            for (uint64_t i = 0; i < calls; ++i) {
                product.sign(sums, static_cast<size_t>(rows), {place, kernels.sign_block_bytes(cols), blocks}, cols,
                             place + bits_bytes, stride, tokens, false);
            }
            *sink = static_cast<uint64_t>(sums[0]);
            return calls * weights;
        });
        return {};
    }

    static size_t round64(size_t bytes) { return (bytes + 63) / 64 * 64; }
    void keep(uint64_t sink) { kept_.fetch_xor(sink, std::memory_order_relaxed); }

    const ProbeOptions& options_;
    Pool& pool_;
    const ProbeSet& probes_;
    std::atomic<uint64_t> kept_{0};
    int missed_ = 0;  // runs of one probe that did not have all threads
};

}  // namespace

const ProbeSet& probe_set(const KernelSet& kernels) {
    // of avx512vnni+avx2, which a Zen 4 runs, the first has the widest registers
    const std::string_view all = kernels.name, name = all.substr(0, all.find('+'));
    const ProbeSet* const sets[] = {
        &probes_scalar,
#if defined(ONEBIT_HAS_AVX2)
        &probes_avx2,
#endif
#if defined(ONEBIT_HAS_AVXVNNI)
        &probes_avxvnni,
#endif
#if defined(ONEBIT_HAS_AVX512)
        &probes_avx512,
#endif
#if defined(ONEBIT_HAS_AVX512VNNI)
        &probes_avx512vnni,
#endif
#if defined(ONEBIT_HAS_NEON)
        &probes_neon,
#endif
#if defined(ONEBIT_HAS_NEONDOT)
        &probes_neondot,
#endif
    };
#if defined(ONEBIT_HAS_AMX)
    static const ProbeSet amx = [] {
        ProbeSet probes = probes_avx512vnni;
        probes.name = probes_amx.name;
        probes.int8_macs = probes_amx.int8_macs;
        return probes;
    }();
    if (name == amx.name) return amx;
#endif
    for (const ProbeSet* set : sets) {
        if (name == set->name) return *set;
    }
    return probes_scalar;
}

Status measure_peaks(const ProbeOptions& options, Pool& pool, Peaks* out) {
    Prober prober(options, pool);
    if (options.dram) {
        if (Status status = prober.dram(out); !status.ok()) return status;
    }
    if (options.int8) out->int8_peak_gmacs = prober.int8();
    if (options.lookup) {
        if (Status status = prober.lookup(&out->lookup_peak_gws); !status.ok()) return status;
    }
    if (options.f32) out->f32_peak_gmacs = prober.f32();
    if (prober.cancelled()) return error("ERR_ABORTED", "Measuring was cancelled.");
    return {};
}

}  // namespace onebit
