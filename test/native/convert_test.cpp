// What the tests in TypeScript cannot reach: SVID on any number of threads gives the same bytes, it stops when told
// to, and every conversion stays inside buffers that end where their data ends (meant for the sanitized build).
#include "convert/convert.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "check.h"
#include "kernels/math.h"
#include "convert/svid.h"

using namespace onebit;

namespace {

// Numbers between -1 and 1, the same every time (xorshift32).
class Random {
public:
    float next() {
        state_ ^= state_ << 13;
        state_ ^= state_ >> 17;
        state_ ^= state_ << 5;
        return static_cast<float>(static_cast<int32_t>(state_)) / 2147483648.0f;
    }

private:
    uint32_t state_ = 2463534242u;
};

std::vector<float> random_values(size_t count) {
    Random random;
    std::vector<float> values(count);
    for (float& value : values) value = random.next();
    return values;
}

struct Factors {
    std::vector<float> g, h;
    SvidResult result;
    Status status;
};

Factors factorise(const std::vector<float>& w, int rows, int cols, const SvidOptions& options, int threads) {
    Pool pool;
    pool.resize(threads);
    Factors found{std::vector<float>(static_cast<size_t>(cols)), std::vector<float>(static_cast<size_t>(rows)), {}, {}};
    found.status = svid(w.data(), rows, cols, options, pool, found.g.data(), found.h.data(), &found.result);
    return found;
}

void test_svid_threads() {
    const int shapes[][2] = {{1, 8}, {3, 16}, {200, 1}, {777, 520}, {64, 4104}};
    for (const auto& [rows, cols] : shapes) {
        const std::vector<float> w = random_values(static_cast<size_t>(rows) * static_cast<size_t>(cols));
        for (const SvidMethod method : {SvidMethod::svd, SvidMethod::nmf}) {
            SvidOptions options;
            options.method = method;
            const Factors one = factorise(w, rows, cols, options, 1);
            CHECK(one.status.ok());
            for (const int threads : {2, 3, 7}) {
                const Factors many = factorise(w, rows, cols, options, threads);
                CHECK(many.g == one.g && many.h == one.h);
                CHECK(many.result.relative_error == one.result.relative_error);
            }
        }
    }
}

// Two singular values that are nearly equal: telling them apart takes SVID all its rounds, seconds in all.
std::vector<float> two_blocks(int size) {
    const size_t n = static_cast<size_t>(size), half = n / 2;
    std::vector<float> w(n * n);
    for (size_t row = 0; row < n; ++row) {
        const size_t from = row * n + (row < half ? 0 : half);
        std::fill_n(w.data() + from, half, row < half ? 1.0f : 0.999f);
    }
    return w;
}

// How long it went on after it was told to stop in the middle.
double cancelled_after_ms(const std::vector<float>& w, int size) {
    std::atomic<bool> cancel{false};
    SvidOptions options;
    options.cancel = &cancel;
    std::chrono::steady_clock::time_point told;
    std::thread canceller([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        told = std::chrono::steady_clock::now();
        cancel.store(true);
    });
    const Factors found = factorise(w, size, size, options, 2);
    const auto ended = std::chrono::steady_clock::now();
    canceller.join();
    CHECK(!found.status.ok() && std::strcmp(found.status.code, "ERR_CANCELLED") == 0);
    return std::chrono::duration<double, std::milli>(ended - told).count();
}

// The best of several: on a busy machine any of them may wait for a processor. But none may wait for as long as all the
// rounds take: what ignores the flag nine times of ten has a good best, too.
void test_svid_cancel() {
    const int size = 4096;
    const std::vector<float> w = two_blocks(size);
    double best_ms = 1e9;
    for (int i = 0; i < 3 || (i < 20 && best_ms > 50); ++i) {
        const double ms = cancelled_after_ms(w, size);
        CHECK(ms < 1000);
        best_ms = std::min(best_ms, ms);
    }
    CHECK(best_ms <= 50);
}

// Every type, one to five blocks in a row, from a buffer of exactly that size at an odd address.
void test_rows_to_f32() {
    for (int t = 0; t <= static_cast<int>(SourceType::q1_0); ++t) {
        const SourceType type = static_cast<SourceType>(t);
        for (size_t blocks = 1; blocks <= 5; ++blocks) {
            const size_t bytes = 3 * blocks * block_bytes(type), cols = blocks * block_elements(type);
            const std::unique_ptr<uint8_t[]> source(new uint8_t[bytes + 1]);
            std::memset(source.get(), 0x35, bytes + 1);
            const std::unique_ptr<float[]> out(new float[3 * cols]);
            CHECK(rows_to_f32(type, source.get() + 1, 3, cols, out.get()).ok());
            for (size_t i = 0; i < 3 * cols; ++i) CHECK(std::isfinite(out[i]));
        }
    }
}

void test_f16_patterns() {
    for (uint32_t bits = 0; bits < 65536; ++bits) {
        const uint8_t source[] = {static_cast<uint8_t>(bits), static_cast<uint8_t>(bits >> 8)};
        const float expected = f32_from_f16(static_cast<uint16_t>(bits));
        float found = 0;
        const Status status = rows_to_f32(SourceType::f16, source, 1, 1, &found);
        CHECK(status.ok() == std::isfinite(expected) && (!status.ok() || found == expected));
    }
}

void test_rows_from_f32() {
    for (const size_t cols : {size_t{1}, size_t{7}, size_t{8}, size_t{33}, size_t{256}}) {
        const std::vector<float> rows = random_values(3 * cols);
        std::vector<uint8_t> half(6 * cols), brain(6 * cols);
        std::vector<int8_t> ints(3 * cols);
        std::vector<float> scales(3);
        CHECK(rows_to_f16(rows.data(), 3, cols, half.data()).ok());
        CHECK(rows_to_bf16(rows.data(), 3, cols, brain.data()).ok());
        CHECK(rows_to_q8(rows.data(), 3, cols, ints.data(), scales.data()).ok());
        for (size_t i = 0; i < rows.size(); ++i) {
            uint16_t bits;
            std::memcpy(&bits, half.data() + 2 * i, sizeof bits);
            CHECK(bits == f16_from_f32(rows[i]));
            const float scale = scales[i / cols];
            CHECK(std::fabs(static_cast<float>(ints[i]) * scale - rows[i]) <= scale * 0.5001f);
        }
    }
    // A row of zeros, and one so small that no scale has a finite inverse.
    const float tiny[] = {0, 0, 1e-40f, -1e-40f};
    int8_t ints[4] = {1, 1, 1, 1};
    float scales[2] = {1, 1};
    CHECK(rows_to_q8(tiny, 2, 2, ints, scales).ok());
    for (const int8_t value : ints) CHECK(value == 0);
    CHECK(scales[0] == 0 && scales[1] == 0);
}

}  // namespace

int main() {
    test_svid_threads();
    test_svid_cancel();
    test_rows_to_f32();
    test_f16_patterns();
    test_rows_from_f32();
    return check::summary();
}
