// The one place that asks the system for large memory. Returns null or false instead of throwing.
#pragma once

#include <cstddef>
#include <cstdint>

namespace onebit {

// Zeroed, 64-byte aligned memory (2 MiB aligned and advised for huge pages when large and `huge` is set),
// untouched until used. Null when there is none.
void* allocate_pages(size_t bytes, bool huge);
void free_pages(void* pointer, size_t bytes);

// A range of addresses whose memory is asked for piece by piece, from the start: it grows and stays where it is.
class Reservation {
public:
    Reservation() = default;
    ~Reservation();
    Reservation(const Reservation&) = delete;
    Reservation& operator=(const Reservation&) = delete;

    bool reserve(size_t bytes);  // once; takes addresses, no memory
    bool grow(size_t bytes);     // the first `bytes` may be used from then on; false: the system has no more
    unsigned char* base() const { return base_; }

private:
    bool allow(size_t from, size_t to);

    unsigned char* base_ = nullptr;
    size_t bytes_ = 0, usable_ = 0;
};

// Hands out pieces of one reservation. Before reserve() it only counts: every take() returns null and used() grows,
// so that the same code can be run once to measure and once to place.
class Arena {
public:
    Arena() = default;
    ~Arena();
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;

    bool reserve(size_t bytes);  // once; starts counting anew; false when the system refuses
    void* take(size_t bytes);    // 64-byte aligned; null before reserve() or when the reservation is used up
    size_t used() const { return used_; }
    uint64_t bytes() const { return capacity_; }

private:
    unsigned char* base_ = nullptr;
    size_t capacity_ = 0;
    size_t used_ = 0;
};

}  // namespace onebit
