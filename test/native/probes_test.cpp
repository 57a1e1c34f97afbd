// The loops that measure the machine: that they do what they count, on every instruction set that there is.
#include "probes/probes.h"

#include <cmath>
#include <string>
#include <vector>

#include "check.h"
#include "probes/probe_set.h"

using namespace onebit;

namespace {

void reads_every_byte(uint64_t (*read)(const uint8_t*, size_t)) {
    constexpr size_t kBytes = 2048;
    std::vector<uint8_t> memory(kBytes + 1, 1);
    const uint64_t before = read(memory.data() + 1, kBytes);
    for (size_t i = 1; i <= kBytes; ++i) {
        memory[i] = 2;
        CHECK(read(memory.data() + 1, kBytes) != before);
        memory[i] = 1;
    }
    memory[0] = 2;  // not a byte of these
    CHECK(read(memory.data() + 1, kBytes) == before);
}

void does_what_it_counts(uint64_t (*work)(uint64_t, uint64_t*)) {
    uint64_t few = 0, more = 0, again = 0;
    const uint64_t counted = work(1000, &few);
    CHECK(counted >= 1000 && counted < 100000);  // a round of tiles is 65,536
    CHECK(work(200000, &more) >= 200000);
    CHECK(work(1000, &again) == counted && again == few && few != 0);
}

void probes_one_set(const KernelSet& kernels) {
    const ProbeSet& probes = probe_set(kernels);
    const std::string name = kernels.name;
    CHECK(probes.name == name.substr(0, name.find('+')));
    // Some processors run such a set; all measure it by the first of its names.
    KernelSet two = kernels;
    const std::string names = std::string(probes.name) + "+avx2";
    two.name = names.c_str();
    CHECK(&probe_set(two) == &probes);
    for (const auto read : {probes.read_plain, probes.read_prefetch_near, probes.read_prefetch_both}) {
        reads_every_byte(read);
    }
    does_what_it_counts(probes.int8_macs);
    does_what_it_counts(probes.f32_macs);

    ProbeOptions options;
    options.kernels = &kernels;
    options.dram_bytes = uint64_t{1} << 20;
    options.least_seconds = 0.0002;
    for (const int threads : {1, 2}) {
        Pool pool;
        pool.resize(threads);
        Peaks peaks;
        if (!CHECK(measure_peaks(options, pool, &peaks).ok())) return;
        CHECK(peaks.dram.size() == 6);
        for (const DramRead& read : peaks.dram) CHECK(read.gbps > 0 && read.gbps <= peaks.dram_gbps);
        for (const double peak :
             {peaks.dram_gbps, peaks.int8_peak_gmacs, peaks.lookup_peak_gws, peaks.f32_peak_gmacs}) {
            CHECK(std::isfinite(peak) && peak > 0.001 && peak < 1e5);
        }
    }
}

void measures_what_is_asked_for() {
    ProbeOptions options;
    options.kernels = choose_kernels(nullptr, nullptr);
    options.least_seconds = 0.0002;
    options.dram = options.lookup = options.f32 = false;
    Pool pool;
    Peaks peaks;
    CHECK(measure_peaks(options, pool, &peaks).ok());
    CHECK(peaks.int8_peak_gmacs > 0 && peaks.dram.empty() && peaks.lookup_peak_gws == 0 && peaks.f32_peak_gmacs == 0);
    options.dram = true;
    options.dram_bytes = uint64_t{1} << 50;
    CHECK(std::string(measure_peaks(options, pool, &peaks).code) == "ERR_OUT_OF_MEMORY");
    const std::atomic<bool> cancelled{true};
    options.dram_bytes = uint64_t{1} << 20;
    options.cancel = &cancelled;
    CHECK(std::string(measure_peaks(options, pool, &peaks).code) == "ERR_ABORTED");
}

}  // namespace

int main() {
    int count = 0;
    const IsaEntry* table = isa_table(&count);
    for (int i = 0; i < count; ++i) {
        const char* why = nullptr;
        if (const KernelSet* kernels = choose_kernels(table[i].name, &why)) probes_one_set(*kernels);
    }
    measures_what_is_asked_for();
    return check::summary();
}
