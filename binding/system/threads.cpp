// How many threads to compute with by default. One per physical core: two hyper-threads of a core share the units
// that the kernels keep busy.
#include "system/pool.h"

#include <algorithm>
#include <cstdio>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(_WIN32)
#include <windows.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__linux__)
#include <sched.h>
#endif

namespace onebit {

namespace {

#if defined(__linux__)
// The number in a small file such as /sys/.../core_id; -1 when it is not there.
long number_in(const std::string& path) {
    std::FILE* file = std::fopen(path.c_str(), "r");
    if (!file) return -1;
    long value = -1;
    if (std::fscanf(file, "%ld", &value) != 1) value = -1;
    std::fclose(file);
    return value;
}

// Whole processors that the cgroup's quota allows, 0 when there is no quota. v2 first, then v1.
int cgroup_processors() {
    if (std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r")) {
        double quota = 0, period = 0;
        const int read = std::fscanf(file, "%lf %lf", &quota, &period);  // "max 100000" reads none
        std::fclose(file);
        return read == 2 && period > 0 ? std::max(1, static_cast<int>(quota / period)) : 0;
    }
    const long quota = number_in("/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    const long period = number_in("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    return quota > 0 && period > 0 ? std::max(1, static_cast<int>(quota / period)) : 0;
}

int physical_cores() {
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 0;
    std::set<std::pair<long, long>> cores;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
        if (!CPU_ISSET(cpu, &allowed)) continue;
        const std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
        const long core = number_in(topology + "core_id");
        if (core >= 0) cores.emplace(number_in(topology + "physical_package_id"), core);
    }
    const int found = cores.empty() ? CPU_COUNT(&allowed) : static_cast<int>(cores.size());
    const int quota = cgroup_processors();
    return quota > 0 ? std::min(found, quota) : found;
}
#elif defined(__APPLE__)
int physical_cores() {
    int cores = 0;
    size_t size = sizeof cores;
    // Performance cores only: an efficiency core in the row split would hold the others up.
    if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, nullptr, 0) == 0 && cores > 0) return cores;
    size = sizeof cores;
    return sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0) == 0 ? cores : 0;
}
#elif defined(_WIN32)
int physical_cores() {
    DWORD_PTR process = 0, system = 0;
    if (!GetProcessAffinityMask(GetCurrentProcess(), &process, &system)) return 0;
    DWORD bytes = 0;
    GetLogicalProcessorInformation(nullptr, &bytes);
    std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> entries(bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION));
    if (entries.empty() || !GetLogicalProcessorInformation(entries.data(), &bytes)) return 0;
    int cores = 0;
    for (const auto& entry : entries) {
        if (entry.Relationship == RelationProcessorCore && (entry.ProcessorMask & process) != 0) ++cores;
    }
    return cores;
}
#else
int physical_cores() { return 0; }
#endif

}  // namespace

int default_threads() {
    int cores = physical_cores();
    if (cores <= 0) cores = static_cast<int>(std::thread::hardware_concurrency());
    return std::clamp(cores, 1, Pool::kMaxThreads);
}

}  // namespace onebit
