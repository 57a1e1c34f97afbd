// Cuts one block of memory into aligned pieces. With a null block it only counts, so that the code which lays buffers
// out also says how much they need.
#pragma once

#include <algorithm>
#include <cstddef>

namespace onebit {

class Carver {
public:
    explicit Carver(unsigned char* base) : base_(base) {}

    template <class T>
    T* take(size_t count) {
        T* taken = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (count * sizeof(T) + 63) / 64 * 64;
        most_ = std::max(most_, used_);
        return taken;
    }

    size_t mark() const { return used_; }
    void release(size_t mark) { used_ = mark; }  // pieces taken since may be handed out again
    size_t most() const { return most_; }

private:
    unsigned char* base_;
    size_t used_ = 0;
    size_t most_ = 0;
};

}  // namespace onebit
