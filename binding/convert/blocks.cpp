#include "convert/blocks.h"

#include <bit>
#include <cstring>

namespace onebit {

namespace {

float number(int x) { return static_cast<float>(x); }
int low(uint8_t byte) { return byte & 15; }
int high(uint8_t byte) { return byte >> 4; }

void q8_0(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    for (size_t i = 0; i < 32; ++i) out[i] = d * number(static_cast<int8_t>(block[2 + i]));
}

// ---- 4 and 5 bits in blocks of 32: low nibbles are elements 0..15, high nibbles 16..31 ------------------

void q4_0(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    for (size_t i = 0; i < 16; ++i) {
        out[i] = d * number(low(block[2 + i]) - 8);
        out[16 + i] = d * number(high(block[2 + i]) - 8);
    }
}

void q4_1(const uint8_t* block, float* out) {
    const float d = load_f16(block), m = load_f16(block + 2);
    for (size_t i = 0; i < 16; ++i) {
        out[i] = d * number(low(block[4 + i])) + m;
        out[16 + i] = d * number(high(block[4 + i])) + m;
    }
}

// Element i's fifth bit is bit i of four bytes.
struct Fifth {
    uint32_t bits;
    explicit Fifth(const uint8_t* at) { std::memcpy(&bits, at, sizeof bits); }
    int of(size_t i) const { return static_cast<int>(bits >> i & 1) << 4; }
};

void q5_0(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    const Fifth fifth(block + 2);
    for (size_t i = 0; i < 16; ++i) {
        out[i] = d * number((low(block[6 + i]) | fifth.of(i)) - 16);
        out[16 + i] = d * number((high(block[6 + i]) | fifth.of(16 + i)) - 16);
    }
}

void q5_1(const uint8_t* block, float* out) {
    const float d = load_f16(block), m = load_f16(block + 2);
    const Fifth fifth(block + 4);
    for (size_t i = 0; i < 16; ++i) {
        out[i] = d * number(low(block[8 + i]) | fifth.of(i)) + m;
        out[16 + i] = d * number(high(block[8 + i]) | fifth.of(16 + i)) + m;
    }
}

// ---- K-quants: 256 elements, a scale for each 16 or 32 of them -----------------------------------------

// scales 16 (a nibble each for scale and minimum), 2 bits 64, d, dmin.
void q2_k(const uint8_t* block, float* out) {
    const float d = load_f16(block + 80), least = load_f16(block + 82);
    for (size_t group = 0; group < 16; ++group) {
        const size_t half = group / 8, shift = group % 8 / 2 * 2;
        const uint8_t* q = block + 16 + half * 32 + group % 2 * 16;
        const float scale = d * number(low(block[group])), minimum = least * number(high(block[group]));
        for (size_t i = 0; i < 16; ++i) out[group * 16 + i] = scale * number(q[i] >> shift & 3) - minimum;
    }
}

// third bits 32 (a clear one takes 4 away), 2 bits 64, scales 12 (6 bits each), d.
void q3_k(const uint8_t* block, float* out) {
    const uint8_t* scales = block + 96;
    const float d = load_f16(block + 108);
    for (size_t group = 0; group < 16; ++group) {
        const size_t half = group / 8, step = group % 8 / 2, from = group % 2 * 16;
        const int nibble = group < 8 ? low(scales[group]) : high(scales[group - 8]);
        const int scale = (nibble | (scales[8 + group % 4] >> group / 4 * 2 & 3) << 4) - 32;
        const float by = d * number(scale);
        for (size_t i = 0; i < 16; ++i) {
            const int q = block[32 + half * 32 + from + i] >> step * 2 & 3;
            const int third = block[from + i] >> (half * 4 + step) & 1;
            out[group * 16 + i] = by * number(q - (third != 0 ? 0 : 4));
        }
    }
}

// Eight scales and eight minimums of 6 bits in 12 bytes.
struct SixBits {
    int scale, minimum;
    SixBits(const uint8_t* at, size_t j) {
        if (j < 4) {
            scale = at[j] & 63;
            minimum = at[j + 4] & 63;
        } else {
            scale = low(at[j + 4]) | at[j - 4] >> 6 << 4;
            minimum = high(at[j + 4]) | at[j] >> 6 << 4;
        }
    }
};

// d, dmin, scales 12, fifth bits 32 if there are any, 4 bits 128.
template <bool has_fifth>
void q4_or_q5_k(const uint8_t* block, float* out) {
    const float d = load_f16(block), least = load_f16(block + 2);
    const uint8_t *fifths = block + 16, *fours = has_fifth ? block + 48 : block + 16;
    for (size_t group = 0; group < 8; ++group) {
        const SixBits six(block + 4, group);
        const float scale = d * number(six.scale), minimum = least * number(six.minimum);
        const uint8_t* q = fours + group / 2 * 32;
        for (size_t i = 0; i < 32; ++i) {
            const int fifth = has_fifth ? (fifths[i] >> group & 1) << 4 : 0;
            out[group * 32 + i] = scale * number((group % 2 == 0 ? low(q[i]) : high(q[i])) + fifth) - minimum;
        }
    }
}

// 4 bits 128, 2 more 64, signed scales 16, d.
void q6_k(const uint8_t* block, float* out) {
    const float d = load_f16(block + 208);
    for (size_t group = 0; group < 16; ++group) {
        const size_t half = group / 8, quarter = group % 8 / 2, from = group % 2 * 16;
        const uint8_t* four = block + half * 64 + quarter % 2 * 32 + from;
        const uint8_t* two = block + 128 + half * 32 + from;
        const float scale = d * number(static_cast<int8_t>(block[192 + group]));
        for (size_t i = 0; i < 16; ++i) {
            const int q = (quarter < 2 ? low(four[i]) : high(four[i])) | (two[i] >> quarter * 2 & 3) << 4;
            out[group * 16 + i] = scale * number(q - 32);
        }
    }
}

// ---- 16 levels that are not evenly spread --------------------------------------------------------------

constexpr int8_t kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

void levels(const uint8_t* q, float d, float* out) {
    for (size_t i = 0; i < 16; ++i) {
        out[i] = d * number(kLevels[low(q[i])]);
        out[16 + i] = d * number(kLevels[high(q[i])]);
    }
}

void iq4_nl(const uint8_t* block, float* out) { levels(block + 2, load_f16(block), out); }

// d, the upper 2 bits of 8 scales, their lower 4 bits, 4 bits 128.
void iq4_xs(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    const uint16_t upper = load_u16(block + 2);
    for (size_t group = 0; group < 8; ++group) {
        const uint8_t pair = block[4 + group / 2];
        const int scale = (group % 2 == 0 ? low(pair) : high(pair)) | (upper >> group * 2 & 3) << 4;
        levels(block + 8 + group * 16, d * number(scale - 32), out + group * 32);
    }
}

// ---- signs ---------------------------------------------------------------------------------

void q1_0(const uint8_t* block, float* out) {
    const float d = load_f16(block);
    for (size_t i = 0; i < 128; ++i) out[i] = ((block[2 + i / 8] >> (i % 8)) & 1) != 0 ? d : -d;
}

// ---- ternary: codes, weight + 1, and one scale ------------------------------------------------------------

// d, 2 bits each; a code of 3, which no ternary file has, is +2. Two bytes at a time become eight.
template <size_t elements>
void q2_0_codes(const uint8_t* block, uint8_t* out) {
    for (size_t i = 0; i < elements; i += 8, out += 8) {
        uint64_t codes = block[2 + i / 4] | uint64_t{block[3 + i / 4]} << 32;
        codes = (codes | codes << 12) & 0x000f000f000f000fu;
        codes = (codes | codes << 6) & 0x0303030303030303u;
        std::memcpy(out, &codes, sizeof codes);
    }
}

// Five digits of base 3 lie in a byte as the fraction byte / 256: the first is the whole part of three times that.
uint8_t digit(uint8_t byte, size_t n) {
    for (; n > 0; --n) byte = static_cast<uint8_t>(byte * 3);
    return static_cast<uint8_t>(byte * 3 >> 8);
}

// `count` bytes hold `digits` times as many elements: digit n of byte m is element n * count + m.
uint8_t* digits_of(const uint8_t* q, size_t count, size_t digits, uint8_t* out) {
    for (size_t n = 0; n < digits; ++n) {
        for (size_t m = 0; m < count; ++m) *out++ = digit(q[m], n);
    }
    return out;
}

// 48 bytes of five digits, 4 of four, d.
void tq1_0_codes(const uint8_t* block, uint8_t* out) {
    out = digits_of(block, 32, 5, out);
    out = digits_of(block + 32, 16, 5, out);
    digits_of(block + 48, 4, 4, out);
}

// 24 bytes of five digits, 2 of four, d.
void ptq1_0_codes(const uint8_t* block, uint8_t* out) {
    out = digits_of(block, 16, 5, out);
    out = digits_of(block + 16, 8, 5, out);
    digits_of(block + 24, 2, 4, out);
}

// 2 bits 64, d: each 32 bytes hold the codes of 32 elements, of the next 32, and so on.
void tq2_0_codes(const uint8_t* block, uint8_t* out) {
    for (size_t half = 0; half < 64; half += 32) {
        for (int shift = 0; shift < 8; shift += 2) {
            for (size_t m = 0; m < 32; ++m) *out++ = static_cast<uint8_t>(block[half + m] >> shift & 3);
        }
    }
}

template <void (*codes)(const uint8_t*, uint8_t*), size_t elements, size_t scale_at>
void ternary(const uint8_t* block, float* out) {
    uint8_t found[elements];
    codes(block, found);
    const float d = load_f16(block + scale_at);
    for (size_t i = 0; i < elements; ++i) out[i] = number(found[i] - 1) * d;
}

}  // namespace

uint16_t load_u16(const uint8_t* at) {
    uint16_t bits;
    std::memcpy(&bits, at, sizeof bits);  // sources are not aligned
    return bits;
}

// f32_from_f16 in a form without branches, which compilers vectorise: shifted into place, a half is its value times
// 2^-112, subnormal or not. Exact, because the product is by a power of two.
float load_f16(const uint8_t* at) {
    const uint32_t half = load_u16(at);
    const float magnitude = std::bit_cast<float>((half & 0x7fffu) << 13) * 0x1p112f;
    const uint32_t special = (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | special | (half & 0x8000u) << 16);
}

float load_bf16(const uint8_t* at) { return std::bit_cast<float>(static_cast<uint32_t>(load_u16(at)) << 16); }

const BlockFormat kBlockFormats[] = {
    {"f32", 1, 4, nullptr},          {"f16", 1, 2, nullptr},      {"bf16", 1, 2, nullptr},
    {"q8_0", 32, 34, q8_0},          {"q4_0", 32, 18, q4_0},      {"q4_1", 32, 20, q4_1},
    {"q1_0", 128, 18, q1_0},         {"q5_0", 32, 22, q5_0},      {"q5_1", 32, 24, q5_1},
    {"q2_k", 256, 84, q2_k},         {"q3_k", 256, 110, q3_k},    {"q4_k", 256, 144, q4_or_q5_k<false>},
    {"q5_k", 256, 176, q4_or_q5_k<true>},        {"q6_k", 256, 210, q6_k},    {"iq4_nl", 32, 18, iq4_nl},
    {"iq4_xs", 256, 136, iq4_xs},
    {"q2_0", 64, 18, ternary<q2_0_codes<64>, 64, 0>, q2_0_codes<64>, 0},
    {"q2_0_g128", 128, 34, ternary<q2_0_codes<128>, 128, 0>, q2_0_codes<128>, 0},
    {"tq1_0", 256, 54, ternary<tq1_0_codes, 256, 52>, tq1_0_codes, 52},
    {"tq2_0", 256, 66, ternary<tq2_0_codes, 256, 64>, tq2_0_codes, 64},
    {"ptq1_0", 128, 28, ternary<ptq1_0_codes, 128, 26>, ptq1_0_codes, 26},
};
const size_t kBlockFormatCount = sizeof kBlockFormats / sizeof kBlockFormats[0];

}  // namespace onebit
