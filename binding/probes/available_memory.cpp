#include "probes/available_memory.h"

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstring>

#if defined(_WIN32)
#include <windows.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <unistd.h>
#endif

namespace onebit {

#if defined(__linux__)

namespace {

// The number after `key` in a file of lines "key number"; without a key the number that the file starts with.
// False when it is not there ("max" is no number).
bool number_in(const char* path, const char* key, uint64_t* out) {
    std::FILE* file = std::fopen(path, "r");
    if (!file) return false;
    bool found = false;
    char line[256];
    const size_t length = std::strlen(key);
    while (!found && std::fgets(line, sizeof line, file)) {
        found = std::strncmp(line, key, length) == 0 && std::sscanf(line + length, "%" SCNu64, out) == 1;
    }
    std::fclose(file);
    return found;
}

// What the control group at the top of our own view still allows: in a container that is the container's.
uint64_t available_in_group() {
    uint64_t most = 0, used = 0, cached = 0;
    if (!number_in("/sys/fs/cgroup/memory.max", "", &most) || !number_in("/sys/fs/cgroup/memory.current", "", &used)) {
        return UINT64_MAX;
    }
    number_in("/sys/fs/cgroup/memory.stat", "inactive_file ", &cached);  // given up when memory runs short
    used -= std::min(used, cached);
    return most > used ? most - used : 1;
}

}  // namespace

uint64_t available_memory() {
    uint64_t kibibytes = 0;
    if (!number_in("/proc/meminfo", "MemAvailable:", &kibibytes)) return 0;
    return std::min(kibibytes << 10, available_in_group());
}

#elif defined(__APPLE__)

uint64_t available_memory() {
    vm_statistics64_data_t pages{};
    mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
    const host_t host = mach_host_self();
    if (host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count) != KERN_SUCCESS)
        return 0;
    const uint64_t free = uint64_t{pages.free_count} + pages.inactive_count + pages.purgeable_count;
    return free * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

#elif defined(_WIN32)

uint64_t available_memory() {
    MEMORYSTATUSEX memory{};
    memory.dwLength = sizeof memory;
    return GlobalMemoryStatusEx(&memory) ? memory.ullAvailPhys : 0;
}

#else

uint64_t available_memory() { return 0; }

#endif

Status check_available(uint64_t bytes, const std::string& what) {
    const uint64_t available = available_memory();
    if (available == 0 || bytes <= available) return {};
    return error("ERR_OUT_OF_MEMORY", what + " needs " + std::to_string(bytes >> 20) + " MiB, and only " +
                                          std::to_string(available >> 20) + " MiB are free.");
}

}  // namespace onebit
