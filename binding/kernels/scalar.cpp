// The kernel set of every machine, and the reference that the other sets are compared with, bit by bit.
//
// Signs keep the official layout (a block is one row). For every 4 activations a table holds the 16 sums of
// +-a0 +-a1 +-a2 +-a3 as int16; a row costs two lookups and two additions per byte (8 weights): 10 Gw/s on the Xeon of
// avx2.cpp.
//
//   table:  | 16 sums of columns 0..3 | 16 sums of columns 4..7 | ...    index: the nibble of sign bits
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "math.h"
#include "sets.h"

namespace onebit {
namespace {

#include "unrolled.inl"

struct Lanes {
    float f[16];
};
struct LaneBits {
    uint32_t u[16];
};

constexpr int kDenseTokens = 1;
constexpr int kAttendQueries = 1;
constexpr int kDeltaLanes = 1;
constexpr int kTileCols = 512;
constexpr int kAttendSums = 4;
constexpr int kHadamardStages = 2;

inline uint32_t float_bits(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}
inline float bits_float(uint32_t b) {
    float x;
    memcpy(&x, &b, 4);
    return x;
}

#ifdef FP_FAST_FMAF
inline float fused(float a, float b, float c) { return fmaf(a, b, c); }
#else
// A fused multiply-add from double arithmetic, for processors without one: no C library's version need be trusted,
// and the compiler can vectorise it. The product of two floats is exact as a double; the sum is rounded to odd
// (an inexact sum gets an odd last bit), after which rounding to float gives the correctly rounded result.
inline float fused(float a, float b, float c) {
    const double product = static_cast<double>(a) * b;
    const double addend = c;
    double sum = product + addend;
    const double back = sum - product;
    const double error = (product - (sum - back)) + (addend - back);
    int64_t bits;
    memcpy(&bits, &sum, 8);
    const bool inexact = error > 0.0 || error < 0.0;  // false for NaN, which an infinite sum leaves here
    const bool towards_zero = (error > 0.0) != (sum > 0.0);
    const int64_t step = towards_zero ? -1 : 1;
    bits += inexact && (bits & 1) == 0 ? step : 0;
    memcpy(&sum, &bits, 8);
    return static_cast<float>(sum);
}
#endif

template <class F>
inline Lanes each(F f) {
    Lanes v;
    for (int i = 0; i < 16; i++) v.f[i] = f(i);
    return v;
}

inline Lanes lanes_zero() {
    return each([](int) { return 0.0f; });
}
inline Lanes lanes_all(float x) {
    return each([=](int) { return x; });
}
inline Lanes lanes_load(const float* p) {
    return each([=](int i) { return p[i]; });
}
inline void lanes_store(float* p, const Lanes& v) { memcpy(p, v.f, sizeof v.f); }
inline Lanes lanes_add(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.f[i] + b.f[i]; });
}
inline Lanes lanes_sub(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.f[i] - b.f[i]; });
}
inline Lanes lanes_mul(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.f[i] * b.f[i]; });
}
inline Lanes lanes_div(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.f[i] / b.f[i]; });
}
inline Lanes lanes_fma(const Lanes& a, const Lanes& b, const Lanes& c) {
    return each([&](int i) { return fused(a.f[i], b.f[i], c.f[i]); });
}
// a > b ? a : b and a < b ? a : b: the second operand where either is NaN.
inline Lanes lanes_larger(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.f[i] > b.f[i] ? a.f[i] : b.f[i]; });
}
inline Lanes lanes_smaller(const Lanes& a, const Lanes& b) {
    return each([&](int i) { return a.f[i] < b.f[i] ? a.f[i] : b.f[i]; });
}
// a < b ? 0 : v
inline Lanes lanes_unless_less(const Lanes& a, const Lanes& b, const Lanes& v) {
    return each([&](int i) { return a.f[i] < b.f[i] ? 0.0f : v.f[i]; });
}
// -v in the lanes whose bit is set.
inline Lanes lanes_flip(const Lanes& v, uint32_t bits) {
    return each([&](int i) { return bits_float(float_bits(v.f[i]) ^ ((bits >> i & 1u) << 31)); });
}
// (a, b) of lanes i and i + H, where i & H is 0, to (a + b, a - b).
template <int H>
inline Lanes lanes_butterfly(const Lanes& v) {
    return each([&](int i) { return (i & H) == 0 ? v.f[i] + v.f[i + H] : v.f[i - H] - v.f[i]; });
}
inline float lanes_sum(Lanes v) {
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < step; i++) v.f[i] += v.f[i + step];
    }
    return v.f[0];
}
inline void lanes_sum4(float* out, const Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d) {
    out[0] = lanes_sum(a);
    out[1] = lanes_sum(b);
    out[2] = lanes_sum(c);
    out[3] = lanes_sum(d);
}
// p * 2^k by 2^(k/2) and 2^(k - k/2); shifted = 1.5 * 2^23 + k.
inline Lanes lanes_times_power(Lanes p, const Lanes& shifted, const Lanes&) {
    for (int i = 0; i < 16; i++) {
        const int32_t k = static_cast<int32_t>(float_bits(shifted.f[i]) - 0x4b400000u);
        const uint32_t half = static_cast<uint32_t>(k >> 1);
        p.f[i] *= bits_float((half + 127u) << 23);
        p.f[i] *= bits_float((static_cast<uint32_t>(k) - half + 127u) << 23);
    }
    return p;
}
inline LaneBits bits_zero() { return LaneBits{}; }
inline LaneBits bits_larger_magnitude(LaneBits b, const Lanes& v) {
    for (int i = 0; i < 16; i++) {
        const uint32_t u = float_bits(v.f[i]) & 0x7fffffffu;
        b.u[i] = u > b.u[i] ? u : b.u[i];
    }
    return b;
}
inline uint32_t bits_max(const LaneBits& b) {
    uint32_t largest = 0;
    for (uint32_t u : b.u) largest = u > largest ? u : largest;
    return largest;
}
inline Lanes lanes_from_i8(const int8_t* p) {
    return each([=](int i) { return static_cast<float>(p[i]); });
}
inline Lanes lanes_from_i32(const int32_t* p) {
    return each([=](int i) { return static_cast<float>(p[i]); });
}
inline Lanes lanes_from_f16(const uint16_t* p) {
    return each([=](int i) { return f32_from_f16(p[i]); });
}
inline Lanes lanes_from_bf16(const uint16_t* p) {
    return each([=](int i) { return f32_from_bf16(p[i]); });
}
// 16 weights of two bits each, code - 1.
inline Lanes lanes_from_codes(uint32_t codes) {
    return each([=](int i) { return static_cast<float>(static_cast<int>(codes >> 2 * i & 3u) - 1); });
}
inline float f16_to_float(uint16_t bits) { return f32_from_f16(bits); }
inline void lanes_to_f16(uint16_t* p, const Lanes& v) {
    for (int i = 0; i < 16; i++) p[i] = f16_from_f32(v.f[i]);
}
// Nearest even; |v| <= 127.5. Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
inline void lanes_to_i8(int8_t* q, const Lanes& v) {
    for (int i = 0; i < 16; i++) q[i] = static_cast<int8_t>(float_bits(v.f[i] + 12582912.0f) & 0xffu);
}

ONEBIT_INLINE void prefetch_near(const uint8_t*) {}
ONEBIT_INLINE void prefetch_far(const uint8_t*) {}
#include "lanes_rows.inl"
#include "lanes_hadamard.inl"
#include "lanes_matrices.inl"
#include "lanes_attend.inl"
#include "lanes_delta.inl"
#include "crc32c_tables.inl"

// ---- signs -----------------------------------------------------------------------------------------------
constexpr int kSignRowBlock = 1;

size_t sign_block_bytes(int cols) { return static_cast<size_t>(cols) / 8; }

void sign_pack(uint8_t* block, const uint8_t* official, int n_rows, int cols) {
    memcpy(block, official, static_cast<size_t>(n_rows) * sign_block_bytes(cols));
}

void sign_unpack_row(uint8_t* official, const uint8_t* block, int row, int cols) {
    memcpy(official, block + static_cast<size_t>(row) * sign_block_bytes(cols), sign_block_bytes(cols));
}

size_t table_bytes(int cols) { return static_cast<size_t>(cols) / 4 * 16 * sizeof(int16_t); }

void table_build(uint8_t* table, const int8_t* q, int cols) {
    for (int c = 0; c < cols; c += 4, table += 32) {
        int16_t sums[16];
        for (int index = 0; index < 16; index++) {
            int sum = 0;
            for (int i = 0; i < 4; i++) sum += (index >> i & 1) ? -q[c + i] : q[c + i];
            sums[index] = static_cast<int16_t>(sum);
        }
        memcpy(table, sums, sizeof sums);
    }
}

inline int32_t lookup(const uint8_t* table, unsigned index) {
    int16_t sum;
    memcpy(&sum, table + index * 2, 2);
    return sum;
}

// The sum over n_bytes * 8 columns.
inline int32_t signed_sum(const uint8_t* bits, const uint8_t* table, int n_bytes) {
    int32_t sum = 0;
    for (int i = 0; i < n_bytes; i++, table += 64)
        sum += lookup(table, bits[i] & 15u) + lookup(table + 32, bits[i] >> 4);
    return sum;
}

void sign_i8(int32_t* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* tables, size_t table_stride,
             int n_tokens, bool add) {
    for (int row = 0; row < blocks.count; row++, blocks.bits += blocks.stride) {
        for (int t = 0; t < n_tokens; t++) {
            const size_t token = static_cast<size_t>(t);
            int32_t& to = out[token * out_stride + static_cast<size_t>(row)];
            to = (add ? to : 0) + signed_sum(blocks.bits, tables + token * table_stride, cols / 8);
        }
    }
}

void grouped_i8(float* out, size_t out_stride, SignBlocks blocks, const uint16_t* scales, int cols, const uint8_t* tables,
                size_t table_stride, int n_tokens, bool add) {
    for (int row = 0; row < blocks.count; row++, blocks.bits += blocks.stride, scales += blocks.stride / 16) {
        for (int t = 0; t < n_tokens; t++) {
            const size_t token = static_cast<size_t>(t);
            const uint8_t* table = tables + token * table_stride;
            float& to = out[token * out_stride + static_cast<size_t>(row)];
            float acc = add ? to : 0.0f;
            for (int g = 0; g < cols / 128; g++) {
                const float sum = static_cast<float>(signed_sum(blocks.bits + g * 16, table + g * 1024, 16));
                acc = fused(f32_from_f16(scales[g]), sum, acc);
            }
            to = acc;
        }
    }
}

// ---- signs with 4-bit activations --------------------------------------------------------------------------
// XNOR and popcount as popcount_signs.inl explains, 64 columns at a time, with the counts of all planes in one word:
// 37 instructions for 64 weights, where the lookups above take 56. 14 Gw/s on a Zen 4 where those take 8, and 9 against
// 7 with a scale per 128 columns.
//
//   planes: | s, m0, m1, m2 of columns 0..63 (four words) | columns 64..127 | ... | A of each 128 columns (int32) |
inline size_t plane_words_bytes(int cols) { return static_cast<size_t>(round_up(cols, 64)) / 2; }

size_t planes_bytes(int cols) { return plane_words_bytes(cols) + static_cast<size_t>(round_up(cols, 128)) / 32; }

void planes_build(uint8_t* planes, const int8_t* q, int cols) {
    const int padded_cols = static_cast<int>(round_up(cols, 64));
    int32_t absolute = 0;
    for (int c = 0; c < padded_cols; c += 64) {
        uint64_t words[4] = {};
        if (c % 128 == 0) absolute = 0;
        for (int i = 0; i < 64; i++) {
            const int a = q[c + i], magnitude = a < 0 ? -a : a;
            words[0] |= static_cast<uint64_t>(a < 0) << i;
            for (int p = 0; p < 3; p++) words[p + 1] |= static_cast<uint64_t>(magnitude >> p & 1) << i;
            absolute += magnitude;
        }
        memcpy(planes + c / 2, words, sizeof words);
        memcpy(planes + plane_words_bytes(cols) + c / 128 * 4, &absolute, 4);
    }
}

// Counts of bits in fields of four.
inline uint64_t count_in_fours(uint64_t bits) {
    bits -= bits >> 1 & 0x5555555555555555u;
    return (bits & 0x3333333333333333u) + (bits >> 2 & 0x3333333333333333u);
}

// u of 64 columns, at most 56 in each byte of the result.
inline uint64_t count_planes(uint64_t signs, const uint8_t* planes) {
    uint64_t words[4];
    memcpy(words, planes, sizeof words);
    const uint64_t negated = signs ^ words[0], bytes = 0x0f0f0f0f0f0f0f0fu;
    const uint64_t low = count_in_fours(negated & words[1]) + 2 * count_in_fours(negated & words[2]);
    const uint64_t high = count_in_fours(negated & words[3]);
    return (low & bytes) + (low >> 4 & bytes) + 4 * ((high & bytes) + (high >> 4 & bytes));
}

// u over n_bytes * 8 columns. Four words add up in bytes before they widen.
inline int32_t count_signed(const uint8_t* bits, const uint8_t* planes, int n_bytes) {
    constexpr uint64_t kEven = 0x00ff00ff00ff00ffu, kHalf = 0x0000ffff0000ffffu;
    uint64_t sums = 0;  // two of 32 bits
    int i = 0;
    for (; i + 32 <= n_bytes; i += 32, planes += 128) {
        uint64_t words[4], in_bytes = 0;
        memcpy(words, bits + i, sizeof words);
        for (int k = 0; k < 4; k++) in_bytes += count_planes(words[k], planes + k * 32);
        const uint64_t in_words = (in_bytes & kEven) + (in_bytes >> 8 & kEven);
        sums += (in_words & kHalf) + (in_words >> 16 & kHalf);
    }
    for (; i < n_bytes; i += 8, planes += 32) {
        uint64_t word = 0;
        memcpy(&word, bits + i, static_cast<size_t>(n_bytes - i < 8 ? n_bytes - i : 8));
        const uint64_t in_bytes = count_planes(word, planes);
        const uint64_t in_words = (in_bytes & kEven) + (in_bytes >> 8 & kEven);
        sums += (in_words & kHalf) + (in_words >> 16 & kHalf);
    }
    return static_cast<int32_t>((sums & 0xffffffffu) + (sums >> 32));
}

inline int32_t absolute_at(const uint8_t* planes, int cols, int group) {
    int32_t absolute;
    memcpy(&absolute, planes + plane_words_bytes(cols) + group * 4, 4);
    return absolute;
}

void sign_i4(int32_t* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* planes, size_t planes_stride,
             int n_tokens, bool add) {
    for (int t = 0; t < n_tokens; t++, planes += planes_stride, out += out_stride) {
        int32_t absolute = 0;
        for (int g = 0; g * 128 < cols; g++) absolute += absolute_at(planes, cols, g);
        for (int row = 0; row < blocks.count; row++) {
            const uint8_t* bits = blocks.bits + static_cast<size_t>(row) * blocks.stride;
            out[row] = (add ? out[row] : 0) + absolute - 2 * count_signed(bits, planes, cols / 8);
        }
    }
}

void grouped_i4(float* out, size_t out_stride, SignBlocks blocks, const uint16_t* scales, int cols, const uint8_t* planes,
                size_t planes_stride, int n_tokens, bool add) {
    for (int row = 0; row < blocks.count; row++, blocks.bits += blocks.stride, scales += blocks.stride / 16) {
        for (int t = 0; t < n_tokens; t++) {
            const size_t token = static_cast<size_t>(t);
            const uint8_t* table = planes + token * planes_stride;
            float& to = out[token * out_stride + static_cast<size_t>(row)];
            float acc = add ? to : 0.0f;
            for (int g = 0; g < cols / 128; g++) {
                const int32_t sum = absolute_at(table, cols, g) - 2 * count_signed(blocks.bits + g * 16, table + g * 64, 16);
                acc = fused(f32_from_f16(scales[g]), static_cast<float>(sum), acc);
            }
            to = acc;
        }
    }
}

// ---- ternary ----------------------------------------------------------------------------------------------
void code_offsets(int32_t* offsets, const int8_t* q, int cols, int group) {
    const int width = group > 0 ? group : cols;
    for (int c = 0; c < cols; c += width) {
        int32_t sum = 0;
        for (int i = c; i < c + width; i++) sum += q[i];
        *offsets++ = -sum;
    }
}

// The exact sum of columns [c, end) of a row of a block; codes: of its first 16 columns.
inline int32_t ternary_sum(const uint8_t* codes, const int8_t* q, int c, int end) {
    int32_t sum = 0;
    for (; c < end; c += 16) {
        for (int k = 0; k < 4; k++) {
            const int byte = codes[c * 4 + k];  // 64 bytes for the block's 16 columns
            for (int j = 0; j < 4; j++) sum += ((byte >> 2 * j & 3) - 1) * q[c + 4 * j + k];
        }
    }
    return sum;
}

inline const uint8_t* ternary_row(const TernaryBlocks& blocks, int row) {
    const size_t block_bytes = static_cast<size_t>(round_up(blocks.cols, 16)) / 4 * kTernaryRows;
    return blocks.codes + static_cast<size_t>(row / kTernaryRows) * block_bytes + row % kTernaryRows * 4;
}

void ternary(int32_t* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens) {
    for (int t = 0; t < tokens.count; t++, out += out_stride) {
        const int8_t* q = tokens.q + static_cast<size_t>(t) * tokens.q_stride;
        for (int row = 0; row < blocks.count * kTernaryRows; row++) out[row] = ternary_sum(ternary_row(blocks, row), q, 0, blocks.cols);
    }
}

void ternary_grouped(float* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens) {
    const int groups = blocks.cols / blocks.group;
    for (int t = 0; t < tokens.count; t++, out += out_stride) {
        const int8_t* q = tokens.q + static_cast<size_t>(t) * tokens.q_stride;
        for (int row = 0; row < blocks.count * kTernaryRows; row++) {
            const uint16_t* d = blocks.scales + row / kTernaryRows * groups * kTernaryRows + row % kTernaryRows;
            float acc = 0.0f;
            for (int g = 0; g < groups; g++) {
                const int32_t sum = ternary_sum(ternary_row(blocks, row), q, g * blocks.group, (g + 1) * blocks.group);
                acc = fused(f32_from_f16(d[g * kTernaryRows]), static_cast<float>(sum), acc);
            }
            out[row] = acc;
        }
    }
}

// ---- int8 matrices -----------------------------------------------------------------------------------------
void q8_i8(int32_t* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const int8_t* q, size_t q_stride,
           int n_tokens) {
    const size_t row_bytes = static_cast<size_t>(round_up(cols, 64));
    for (int r = 0; r < n_rows; r++, w += row_bytes) {
        for (int t = 0; t < n_tokens; t++) {
            const int8_t* a = q + static_cast<size_t>(t) * q_stride;
            int32_t sum = 0;
            for (int c = 0; c < cols; c++) sum += w[c] * a[c];
            out[static_cast<size_t>(t) * out_stride + static_cast<size_t>(r)] = sum;
        }
    }
}

}  // namespace

#define ONEBIT_KERNEL_SET kernels_scalar
#define ONEBIT_KERNEL_NAME "scalar"
#include "kernel_set.inl"

}  // namespace onebit
