// The memory of one step, cut into regions by a layout that is made beforehand. What lies where is decided once; whoever
// computes asks for a region and gets it only when it lies inside the memory there is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onebit {

struct Region {
    size_t at = 0, bytes = 0;
};

// Equal regions, `stride` bytes from one to the next.
struct Regions {
    Region first;
    size_t stride = 0;
    Region operator[](int i) const { return {first.at + static_cast<size_t>(i) * stride, first.bytes}; }
};

// Takes regions one after the other, 64-byte aligned.
class Layout {
public:
    // Bytes that stay free behind every region, for a guard; 0: none, and nothing is remembered.
    explicit Layout(size_t gap) : gap_(gap) {}

    template <class T>
    Region take(size_t count) {
        const Region region{used_, (count * sizeof(T) + 63) / 64 * 64};
        used_ += region.bytes + gap_;
        if (gap_ > 0) regions_.push_back(region);
        return region;
    }

    template <class T>
    Regions take_each(size_t how_many, size_t count) {
        Regions regions{take<T>(count)};
        regions.stride = used_ - regions.first.at;
        for (size_t i = 1; i < how_many; ++i) take<T>(count);
        return regions;
    }

    size_t bytes() const { return used_; }

    // While it lives, what lies behind the regions of a layout at `base` is made so that a stray write is noticed: under
    // AddressSanitizer at once, otherwise at its end, which then ends the process. Without gaps it does nothing.
    class Guard {
    public:
        Guard(const Layout& layout, unsigned char* base);
        ~Guard();
        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;

    private:
        const Layout& layout_;
        unsigned char* base_;
    };

private:
    size_t gap_, used_ = 0;
    std::vector<Region> regions_;
};

// Kept from step to step; grows to the largest seen.
class Workspace {
public:
    // guarded: for tests; always under AddressSanitizer.
    explicit Workspace(bool guarded = false) : guarded_(guarded) {}
    ~Workspace();
    Workspace(const Workspace&) = delete;
    Workspace& operator=(const Workspace&) = delete;

    size_t gap() const;
    bool fit(size_t bytes);  // false: the system has no more, and there is none at all now
    // Null when the region does not lie inside.
    template <class T>
    T* at(Region region) const {
        return region.at <= bytes_ && region.bytes <= bytes_ - region.at ? reinterpret_cast<T*>(base_ + region.at) : nullptr;
    }

private:
    bool guarded_;
    unsigned char* base_ = nullptr;
    size_t bytes_ = 0;
};

}  // namespace onebit
