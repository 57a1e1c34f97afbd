// Cuts one block of memory into aligned pieces. With a null block it only counts, so that the code which lays buffers
// out also says how much they need.
#pragma once

#include <cstddef>

namespace onebit {

class Carver {
public:
    explicit Carver(unsigned char* base) : base_(base) {}

    template <class T>
    T* take(size_t count) {
        T* taken = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
        used_ += (count * sizeof(T) + 63) / 64 * 64;
        return taken;
    }

    size_t used() const { return used_; }

private:
    unsigned char* base_;
    size_t used_ = 0;
};

}  // namespace onebit
