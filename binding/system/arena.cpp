#include "system/arena.h"

#include <cstring>

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace onebit {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;

size_t page_rounded(size_t bytes) {
    const size_t page = bytes >= kHugePage ? kHugePage : 4096;
    return (bytes + page - 1) / page * page;
}

}  // namespace

#if defined(_WIN32)

void* allocate_pages(size_t bytes, bool) {
    // Large pages need a privilege that users do not have, so `huge` changes nothing here.
    return VirtualAlloc(nullptr, page_rounded(bytes), MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

void free_pages(void* pointer, size_t) {
    if (pointer) VirtualFree(pointer, 0, MEM_RELEASE);
}

#else

void* allocate_pages(size_t bytes, bool huge) {
    const size_t size = page_rounded(bytes);
    if (size < bytes) return nullptr;
    const size_t slack = size >= kHugePage ? kHugePage : 0;
    void* mapped = mmap(nullptr, size + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    if (slack == 0) return mapped;
    // Give the ends back so that what is left starts on a huge page.
    auto* start = static_cast<unsigned char*>(mapped);
    const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(start) % kHugePage) % kHugePage;
    if (before > 0) munmap(start, before);
    if (slack > before) munmap(start + before + size, slack - before);
#if defined(MADV_HUGEPAGE)
    if (huge) madvise(start + before, size, MADV_HUGEPAGE);
#else
    (void)huge;
#endif
    return start + before;
}

void free_pages(void* pointer, size_t bytes) {
    if (pointer) munmap(pointer, page_rounded(bytes));
}

#endif

Arena::~Arena() { free_pages(base_, capacity_); }

bool Arena::reserve(size_t bytes) {
    base_ = static_cast<unsigned char*>(allocate_pages(bytes, true));
    capacity_ = base_ ? bytes : 0;
    used_ = 0;
    return base_ != nullptr;
}

void* Arena::take(size_t bytes) {
    const size_t rounded = (bytes + 63) / 64 * 64;
    void* taken = base_ && rounded <= capacity_ - used_ ? base_ + used_ : nullptr;
    used_ += rounded;
    return taken;
}

}  // namespace onebit
