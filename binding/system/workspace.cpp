#include "system/workspace.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "system/memory.h"

#if defined(__SANITIZE_ADDRESS__)
#define ONEBIT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ONEBIT_ASAN 1
#endif
#endif
#if defined(ONEBIT_ASAN)
#include <sanitizer/asan_interface.h>
#endif

namespace onebit {

namespace {

constexpr size_t kGap = 64;
constexpr int kCanary = 0xa5;

#if defined(ONEBIT_ASAN)
constexpr bool kPoisons = true;
void poison(unsigned char* from, size_t bytes) { ASAN_POISON_MEMORY_REGION(from, bytes); }
void unpoison(unsigned char* from, size_t bytes) { ASAN_UNPOISON_MEMORY_REGION(from, bytes); }
#else
constexpr bool kPoisons = false;
void poison(unsigned char*, size_t) {}
void unpoison(unsigned char*, size_t) {}
#endif

}  // namespace

void Layout::guard(unsigned char* base) const {
    for (const Region& region : regions_) {
        unsigned char* const gap = base + region.at + region.bytes;
        if (!kPoisons) std::memset(gap, kCanary, gap_);
        poison(gap, gap_);
    }
}

void Layout::release(unsigned char* base) const {
    for (const Region& region : regions_) {
        unsigned char* const gap = base + region.at + region.bytes;
        unpoison(gap, gap_);
        if (kPoisons || std::all_of(gap, gap + gap_, [](unsigned char byte) { return byte == kCanary; })) continue;
        std::fprintf(stderr, "a step wrote behind its region of %zu bytes at %zu\n", region.bytes, region.at);
        std::abort();
    }
}

Workspace::~Workspace() { free_pages(base_, bytes_); }

size_t Workspace::gap() const { return guarded_ || kPoisons ? kGap : 0; }

bool Workspace::fit(size_t bytes) {
    if (bytes <= bytes_) return true;
    free_pages(base_, bytes_);
    base_ = static_cast<unsigned char*>(allocate_pages(bytes, true));
    bytes_ = base_ ? bytes : 0;
    return base_ != nullptr;
}

}  // namespace onebit
