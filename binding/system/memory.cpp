#include "system/memory.h"

#include <algorithm>

#if defined(_WIN32)
#include <windows.h>
#else
#include <sys/mman.h>
#endif

namespace onebit {

namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kLargestPage = size_t{64} << 10;  // of the systems we run on: protection changes by whole pages

size_t page_rounded(size_t bytes) {
    const size_t page = bytes >= kHugePage ? kHugePage : kLargestPage;
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

Reservation::~Reservation() { free_pages(base_, bytes_); }

bool Reservation::reserve(size_t bytes) {
    bytes_ = page_rounded(bytes);
    if (bytes_ >= bytes) base_ = static_cast<unsigned char*>(VirtualAlloc(nullptr, bytes_, MEM_RESERVE, PAGE_NOACCESS));
    return base_ != nullptr;
}

bool Reservation::allow(size_t from, size_t to) {
    return VirtualAlloc(base_ + from, to - from, MEM_COMMIT, PAGE_READWRITE) != nullptr;
}

#else

namespace {

// Whole pages with this protection; large ones begin on a huge page.
unsigned char* map_pages(size_t bytes, int protection, bool huge) {
    const size_t size = page_rounded(bytes);
    if (size < bytes) return nullptr;
    const size_t slack = size >= kHugePage ? kHugePage : 0;
    void* mapped = mmap(nullptr, size + slack, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return nullptr;
    auto* start = static_cast<unsigned char*>(mapped);
    if (slack == 0) return start;
    // Give the ends back so that what is left starts on a huge page.
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

}  // namespace

void* allocate_pages(size_t bytes, bool huge) { return map_pages(bytes, PROT_READ | PROT_WRITE, huge); }

void free_pages(void* pointer, size_t bytes) {
    if (pointer) munmap(pointer, page_rounded(bytes));
}

Reservation::~Reservation() { free_pages(base_, bytes_); }

bool Reservation::reserve(size_t bytes) {
    bytes_ = page_rounded(bytes);
    base_ = map_pages(bytes, PROT_NONE, true);
    return base_ != nullptr;
}

bool Reservation::allow(size_t from, size_t to) { return mprotect(base_ + from, to - from, PROT_READ | PROT_WRITE) == 0; }

#endif

bool Reservation::grow(size_t bytes) {
    // A last page that is used in part is whole already.
    const size_t wanted = std::min(page_rounded(bytes), bytes_);
    if (bytes > bytes_ || (wanted > usable_ && !allow(usable_, wanted))) return false;
    usable_ = std::max(usable_, wanted);
    return true;
}

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
