// Memory whose neighbours may not be touched: pages without access lie on both sides, so that one byte read or
// written past a buffer's end (or before its beginning) stops the program.
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#undef near  // old words of 16-bit Windows, and names of ours
#undef far
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

class Guarded {
public:
    explicit Guarded(size_t capacity) {
#ifdef _WIN32
        SYSTEM_INFO info;
        GetSystemInfo(&info);
        page_ = info.dwPageSize;
#else
        page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
#endif
        capacity_ = (capacity + page_ - 1) / page_ * page_;
#ifdef _WIN32
        auto* base = static_cast<uint8_t*>(VirtualAlloc(nullptr, capacity_ + 2 * page_, MEM_RESERVE, PAGE_NOACCESS));
        if (base && !VirtualAlloc(base + page_, capacity_, MEM_COMMIT, PAGE_READWRITE)) base = nullptr;
#else
        void* map = mmap(nullptr, capacity_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        auto* base = map == MAP_FAILED ? nullptr : static_cast<uint8_t*>(map);
        if (base && mprotect(base + page_, capacity_, PROT_READ | PROT_WRITE) != 0) base = nullptr;
#endif
        if (!base) {
            fprintf(stderr, "no memory for a guarded buffer of %zu bytes\n", capacity_);
            exit(2);
        }
        first_ = base + page_;
    }
    Guarded(const Guarded&) = delete;
    Guarded& operator=(const Guarded&) = delete;

    // `bytes` bytes that end where the forbidden pages begin, or begin where they end. In the free part next to
    // them lies a canary that intact() looks at.
    template <class T>
    T* place(size_t count, bool at_end) {
        size_ = count * sizeof(T);
        if (size_ + kCanary > capacity_) {
            fprintf(stderr, "a guarded buffer of %zu bytes is too small for %zu\n", capacity_, size_);
            exit(2);
        }
        data_ = at_end ? first_ + capacity_ - size_ : first_;
        canary_ = at_end ? data_ - kCanary : data_ + size_;
        memset(canary_, 0xc5, kCanary);
        return reinterpret_cast<T*>(data_);
    }
    bool intact() const {
        for (size_t i = 0; i < kCanary; i++) {
            if (canary_[i] != 0xc5) return false;
        }
        return true;
    }

private:
    static constexpr size_t kCanary = 64;
    size_t page_ = 0, capacity_ = 0, size_ = 0;
    uint8_t *first_ = nullptr, *data_ = nullptr, *canary_ = nullptr;
};
