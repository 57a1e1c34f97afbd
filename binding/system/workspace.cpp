#include "system/workspace.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "system/memory.h"

#if defined(ONEBIT_ASAN)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(from, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(from, bytes)
#endif

namespace onebit {

namespace {

constexpr size_t kGap = 64;
constexpr int kCanary = 0xa5;

#if defined(ONEBIT_ASAN)
constexpr bool kPoisons = true;
#else
constexpr bool kPoisons = false;
#endif

}  // namespace

Layout::Guard::Guard(const Layout& layout, unsigned char* base) : layout_(layout), base_(base) {
    for (const Region& region : layout.regions_) {
        unsigned char* const gap = base + region.at + region.bytes;
        if (!kPoisons) std::memset(gap, kCanary, layout_.gap_);
        ASAN_POISON_MEMORY_REGION(gap, layout_.gap_);
    }
}

Layout::Guard::~Guard() {
    for (const Region& region : layout_.regions_) {
        unsigned char* const gap = base_ + region.at + region.bytes;
        ASAN_UNPOISON_MEMORY_REGION(gap, layout_.gap_);
        if (kPoisons || std::all_of(gap, gap + layout_.gap_, [](unsigned char byte) { return byte == kCanary; })) continue;
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
