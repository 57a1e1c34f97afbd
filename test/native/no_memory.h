// A system that refuses memory. Only Linux does it on request, and not to the sanitizers, which need memory of their own.
#pragma once

#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define ONEBIT_CAN_REFUSE_MEMORY 1
#include <sys/mman.h>
#include <sys/resource.h>

namespace onebit {

// While one lives, the process gets no more of `resource`: RLIMIT_AS, addresses; RLIMIT_DATA, memory to write to.
class NoMemory {
public:
    explicit NoMemory(decltype(RLIMIT_AS) resource) : resource_(resource) {
        getrlimit(resource_, &before_);
        const rlimit none{1, before_.rlim_max};
        setrlimit(resource_, &none);
    }
    ~NoMemory() { setrlimit(resource_, &before_); }
    NoMemory(const NoMemory&) = delete;
    NoMemory& operator=(const NoMemory&) = delete;

    // False under qemu-user, which ignores such limits.
    static bool possible(decltype(RLIMIT_AS) resource) {
        constexpr size_t bytes = size_t{1} << 20;
        const NoMemory none(resource);
        void* mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped != MAP_FAILED) munmap(mapped, bytes);
        return mapped == MAP_FAILED;
    }

private:
    decltype(RLIMIT_AS) resource_;
    rlimit before_;
};

}  // namespace onebit
#endif
