// What the native benchmarks share: memory to read, and the best time of a loop.
#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <chrono>

#include "system/memory.h"

namespace onebit {

// Memory with arbitrary bits, on large pages where the system gives them.
class Memory {
public:
    explicit Memory(size_t bytes) : size_((bytes + kPage) / kPage * kPage) {
        data_ = static_cast<uint8_t*>(allocate_pages(size_, true));
        if (!data_) abort();  // a benchmark has nothing better to do without memory
        uint32_t word = 1;
        for (size_t i = 0; i < size_; i += 4) {
            word = word * 1664525u + 1013904223u;
            memcpy(data_ + i, &word, 4);
        }
    }
    ~Memory() { free_pages(data_, size_); }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    uint8_t* bytes() const { return data_; }
    template <class T>
    T* as() const {
        return reinterpret_cast<T*>(data_);
    }

private:
    static constexpr size_t kPage = size_t{2} << 20;
    size_t size_;
    uint8_t* data_ = nullptr;
};

template <class F>
double best_seconds(F run) {
    double best = 1e9, total = 0;
    for (int i = 0; i < 5 || (total < 0.3 && i < 1000); i++) {
        const auto begin = std::chrono::steady_clock::now();
        run();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        best = seconds < best ? seconds : best;
        total += seconds;
    }
    return best;
}

}  // namespace onebit
