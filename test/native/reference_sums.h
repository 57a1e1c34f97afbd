// Sums in the order of the contract (lanes16, binding/kernels/kernels.h), and the four loops in which a plain forward pass
// spends its time. Where the processor has FMA those are compiled for it, because without it each fused multiply-add is
// a call. Sanitizers leave them alone and they are optimised in every build: what is looked for is in the engine.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__GNUC__) && !defined(__clang__)
#define ONEBIT_QUICK __attribute__((no_sanitize("address", "undefined", "thread"), optimize("O3")))
#else
#define ONEBIT_QUICK
#endif

namespace reference {

struct Lanes {
    float lane[16] = {};

    void add(int i, float x) { lane[i % 16] += x; }
    void multiply_add(int i, float a, float b) { lane[i % 16] = std::fma(a, b, lane[i % 16]); }
    float total() const {
        float sums[16];
        for (int i = 0; i < 16; ++i) sums[i] = lane[i];
        for (int step = 8; step > 0; step /= 2) {
            for (int i = 0; i < step; ++i) sums[i] += sums[i + step];
        }
        return sums[0];
    }
};

// lanes[i % 16] = fma(a[i], b[i], lanes[i % 16])
ONEBIT_QUICK inline void float_dot_anywhere(const float* a, const float* b, int n, float* lanes) {
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int l = 0; l < 16; ++l) lanes[l] = std::fma(a[i + l], b[i + l], lanes[l]);
    }
    for (int l = 0; i + l < n; ++l) lanes[l] = std::fma(a[i + l], b[i + l], lanes[l]);
}

// sum = fma(a[i], b[i], sum), one after the other
ONEBIT_QUICK inline float chain_anywhere(const float* a, const float* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; ++i) sum = std::fma(a[i], b[i], sum);
    return sum;
}

// out[i] = fma(factor, x[i], out[i])
ONEBIT_QUICK inline void add_times_anywhere(float factor, const float* x, float* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = std::fma(factor, x[i], out[i]);
}

ONEBIT_QUICK inline int32_t int_dot_anywhere(const int8_t* a, const int8_t* b, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}

#if defined(__x86_64__) && defined(__GNUC__)
ONEBIT_QUICK __attribute__((target("avx2,fma"))) inline void float_dot_fma(const float* a, const float* b, int n, float* lanes) {
    float l0[16];
    for (int l = 0; l < 16; ++l) l0[l] = lanes[l];
    int i = 0;
    for (; i + 16 <= n; i += 16) {
        for (int l = 0; l < 16; ++l) l0[l] = __builtin_fmaf(a[i + l], b[i + l], l0[l]);
    }
    for (int l = 0; i + l < n; ++l) l0[l] = __builtin_fmaf(a[i + l], b[i + l], l0[l]);
    for (int l = 0; l < 16; ++l) lanes[l] = l0[l];
}
ONEBIT_QUICK __attribute__((target("avx2,fma"))) inline float chain_fma(const float* a, const float* b, int n) {
    float sum = 0;
    for (int i = 0; i < n; ++i) sum = __builtin_fmaf(a[i], b[i], sum);
    return sum;
}
ONEBIT_QUICK __attribute__((target("avx2,fma"))) inline void add_times_fma(float factor, const float* x, float* out, int n) {
    for (int i = 0; i < n; ++i) out[i] = __builtin_fmaf(factor, x[i], out[i]);
}
ONEBIT_QUICK __attribute__((target("avx2,fma"))) inline int32_t int_dot_avx2(const int8_t* a, const int8_t* b, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; ++i) sum += a[i] * b[i];
    return sum;
}
inline const bool kHasFma = __builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2");
inline void float_dot(const float* a, const float* b, int n, Lanes& lanes) {
    (kHasFma ? float_dot_fma : float_dot_anywhere)(a, b, n, lanes.lane);
}
inline float chain(const float* a, const float* b, int n) { return (kHasFma ? chain_fma : chain_anywhere)(a, b, n); }
inline void add_times(float factor, const float* x, float* out, int n) {
    (kHasFma ? add_times_fma : add_times_anywhere)(factor, x, out, n);
}
inline int32_t int_dot(const int8_t* a, const int8_t* b, int n) { return (kHasFma ? int_dot_avx2 : int_dot_anywhere)(a, b, n); }
#else
inline void float_dot(const float* a, const float* b, int n, Lanes& lanes) { float_dot_anywhere(a, b, n, lanes.lane); }
inline float chain(const float* a, const float* b, int n) { return chain_anywhere(a, b, n); }
inline void add_times(float factor, const float* x, float* out, int n) { add_times_anywhere(factor, x, out, n); }
inline int32_t int_dot(const int8_t* a, const int8_t* b, int n) { return int_dot_anywhere(a, b, n); }
#endif

}  // namespace reference
