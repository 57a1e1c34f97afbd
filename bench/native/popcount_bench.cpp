// Why popcount_signs.inl counts by shuffle where the processor has an instruction that counts: the same product of
// signs and 4-bit activations with VPOPCNTQ and VPOPCNTB, one thread, weights in the L2 cache and in DRAM, beside the
// kernel of the set. x86-64 with AVX-512 BITALG and VPOPCNTDQ, GCC or Clang:
//
//   cmake --build BUILD --target onebit_engine
//   c++ -O3 -std=c++20 -Ibinding bench/native/popcount_bench.cpp BUILD/CMakeFiles/onebit_engine.dir/binding/system/memory.cpp.o
//       BUILD/CMakeFiles/onebit_engine.dir/binding/kernels/*.o
//
// One vector of 512 weights takes, for each of three planes of magnitudes, a VPTERNLOG for (w ^ s) & m, a count and an
// addition: 9 instructions. A shuffle does four columns of 64 rows, all planes, with one addition: 4 instructions for
// 512 weights, 7 with the splitting of nibbles that one token alone has to pay for.
#include <stdio.h>

#if defined(__x86_64__) && defined(__GNUC__)
#ifndef __clang__
// GCC 12 warns about the deliberately undefined registers inside its own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

#include "kernels/kernels.h"
#include "measuring.h"

using namespace onebit;

#define COUNTS __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bitalg,avx512vpopcntdq")))

namespace {

constexpr int kTokens = 4, kRows = 2;

// (rows, cols / 8) official bytes; planes: (tokens, cols / 512, 4) vectors s, m0, m1, m2. cols is a multiple of 512.
template <int T>
COUNTS void count_words(int32_t* out, size_t out_stride, const uint8_t* w, int rows, int cols, const uint8_t* planes,
                        const int32_t* absolute) {
    const int vectors = cols / 512;
    for (int r0 = 0; r0 < rows; r0 += kRows) {
        __m512i sums[T][kRows][3];
        for (auto& token : sums)
            for (auto& row : token)
                for (auto& sum : row) sum = _mm512_setzero_si512();
        for (int j = 0; j < vectors; j++) {
            __m512i bits[kRows];
            for (int r = 0; r < kRows; r++)
                bits[r] = _mm512_loadu_si512(
                    w + (static_cast<size_t>(r0 + r) * static_cast<size_t>(vectors) + static_cast<size_t>(j)) * 64);
            for (int t = 0; t < T; t++) {
                const uint8_t* p = planes + (static_cast<size_t>(t * vectors + j)) * 256;
                const __m512i s = _mm512_loadu_si512(p);
                for (int k = 0; k < 3; k++) {
                    const __m512i m = _mm512_loadu_si512(p + 64 + k * 64);
                    for (int r = 0; r < kRows; r++) {
                        const __m512i on = _mm512_ternarylogic_epi64(bits[r], s, m, 0x28);  // (w ^ s) & m
                        sums[t][r][k] = _mm512_add_epi64(sums[t][r][k], _mm512_popcnt_epi64(on));
                    }
                }
            }
        }
        for (int t = 0; t < T; t++) {
            for (int r = 0; r < kRows; r++) {
                const __m512i u = _mm512_add_epi64(
                    sums[t][r][0],
                    _mm512_add_epi64(_mm512_slli_epi64(sums[t][r][1], 1), _mm512_slli_epi64(sums[t][r][2], 2)));
                out[static_cast<size_t>(t) * out_stride + static_cast<size_t>(r0 + r)] =
                    absolute[t] - 2 * static_cast<int32_t>(_mm512_reduce_add_epi64(u));
            }
        }
    }
}

// One block of 64 rows as lookup_signs.inl lays it out, counts in byte lanes, one row a lane. planes: (tokens, cols /
// 8) of s, m0, m1, m2, each byte four times. One token; widening left out, which can only flatter it.
COUNTS void count_bytes(uint8_t* out, const uint8_t* blocks, int n_blocks, int cols, const uint8_t* planes) {
    for (int b = 0; b < n_blocks; b++) {
        __m512i sums[3] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512()};
        for (int j = 0; j < cols / 8; j++) {
            const __m512i w = _mm512_loadu_si512(
                blocks + (static_cast<size_t>(b) * static_cast<size_t>(cols / 8) + static_cast<size_t>(j)) * 64);
            const uint8_t* p = planes + j * 16;
            int32_t s;
            memcpy(&s, p, 4);
            const __m512i signs = _mm512_set1_epi32(s);
            for (int k = 0; k < 3; k++) {
                int32_t m;
                memcpy(&m, p + 4 + k * 4, 4);
                const __m512i on = _mm512_ternarylogic_epi64(w, signs, _mm512_set1_epi32(m), 0x28);
                sums[k] = _mm512_add_epi8(sums[k], _mm512_popcnt_epi8(on));
            }
        }
        for (int k = 0; k < 3; k++) _mm512_storeu_si512(out + static_cast<size_t>(b) * 192 + k * 64, sums[k]);
    }
}

void measure(const KernelSet* set, const char* place, int rows, int cols, int tokens) {
    const size_t row_bytes = static_cast<size_t>(cols) / 8, n_tokens = static_cast<size_t>(tokens);
    std::vector<uint8_t> w(static_cast<size_t>(rows) * row_bytes), planes(n_tokens * row_bytes * 4),
        blocks(static_cast<size_t>(rows / 64) * set->sign_block_bytes(cols)), repeated(row_bytes * 16);
    std::vector<int8_t> q(n_tokens * static_cast<size_t>(cols));
    std::vector<int32_t> absolute(n_tokens), out(static_cast<size_t>(rows) * n_tokens), want(out.size());
    uint32_t random = 1;
    for (auto& byte : w) byte = static_cast<uint8_t>((random = random * 1664525u + 1013904223u) >> 24);
    for (size_t i = 0; i < q.size(); i++) {
        q[i] = static_cast<int8_t>(static_cast<int>((random = random * 1664525u + 1013904223u) >> 16) % 15 - 7);
        const size_t t = i / static_cast<size_t>(cols), c = i % static_cast<size_t>(cols);
        const int magnitude = q[i] < 0 ? -q[i] : q[i];
        absolute[t] += magnitude;
        const int bits[4] = {q[i] < 0, magnitude & 1, magnitude >> 1 & 1, magnitude >> 2};
        for (size_t k = 0; k < 4; k++)
            planes[t * row_bytes * 4 + c / 512 * 256 + k * 64 + c % 512 / 8] |= static_cast<uint8_t>(bits[k] << c % 8);
    }
    const size_t stride = set->i4.table_bytes(cols);
    std::vector<uint8_t> tables(stride * n_tokens);
    for (size_t t = 0; t < n_tokens; t++)
        set->i4.table_build(tables.data() + t * stride, q.data() + t * static_cast<size_t>(cols), cols);
    for (int b = 0; b < rows / 64; b++)
        set->sign_pack(blocks.data() + static_cast<size_t>(b) * set->sign_block_bytes(cols),
                       w.data() + static_cast<size_t>(b) * 64 * row_bytes, 64, cols);
    const double per = static_cast<double>(rows) * cols * tokens * 1e-9;
    const double shuffle = per / best_seconds([&] {
                               set->i4.sign(want.data(), static_cast<size_t>(rows),
                                            {blocks.data(), set->sign_block_bytes(cols), rows / 64}, cols, tables.data(),
                                            stride, tokens, false);
                           });
    const double words =
        per / best_seconds([&] {
            if (tokens == 1) {
                count_words<1>(out.data(), static_cast<size_t>(rows), w.data(), rows, cols, planes.data(),
                               absolute.data());
            } else {
                for (int t = 0; t < tokens; t += kTokens) {
                    const size_t at = static_cast<size_t>(t);
                    count_words<kTokens>(out.data() + at * static_cast<size_t>(rows), static_cast<size_t>(rows),
                                         w.data(), rows, cols, planes.data() + at * row_bytes * 4, absolute.data() + t);
                }
            }
        });
    printf("%-10s %-4s %2d tokens: shuffle %6.1f Gw/s, vpopcntq %6.1f (%s)", set->name, place, tokens, shuffle, words,
           out == want ? "same sums" : "WRONG SUMS");
    if (tokens == 1) {
        std::vector<uint8_t> lanes(static_cast<size_t>(rows) * 3);
        const double bytes =
            per / best_seconds([&] { count_bytes(lanes.data(), blocks.data(), rows / 64, cols, repeated.data()); });
        printf(", vpopcntb %6.1f", bytes);
    }
    printf("\n");
}

}  // namespace

int main() {
    if (!__builtin_cpu_supports("avx512bitalg") || !__builtin_cpu_supports("avx512vpopcntdq")) {
        printf("skipped: this CPU lacks AVX-512 BITALG or VPOPCNTDQ\n");
        return 0;
    }
    for (const char* name : {"avx2", "avx512"}) {
        const char* why = nullptr;
        const KernelSet* set = choose_kernels(name, &why);
        for (const int tokens : {1, 4, 16}) measure(set, "L2", 1024, 4096, tokens);
        measure(set, "DRAM", 1 << 17, 8192, 1);
    }
    return 0;
}

#else

int main() {
    printf("skipped: x86-64 with GCC or Clang only\n");
    return 0;
}

#endif
