// The kernels of ternary matrices: every set against sums written here in the plainest way.
#include <string>

#include "kernels_checks.h"

using namespace onebit;
using check::Random;

namespace {

Guarded codes(8u << 20), activations(8u << 20), sums(1u << 20), output(4u << 20), scale_bits(2u << 20), inputs(8u << 20);

struct Case {
    int rows, cols, group, tokens;  // group 0: none
    bool at_end;
    std::vector<int8_t> w;     // (rows, cols)
    std::vector<uint16_t> d;   // (rows, groups)
    std::string text;

    int groups() const { return group > 0 ? cols / group : 0; }
    size_t at(int r, int c) const { return static_cast<size_t>(r) * static_cast<size_t>(cols) + static_cast<size_t>(c); }
    float scale(int r, int g) const { return f32_from_f16(d[static_cast<size_t>(r * groups() + g)]); }
};

Case make_case(Random& random, bool grouped) {
    Case c;
    const int choices[] = {64, 128, 256};
    c.group = grouped ? choices[random.between(0, 2)] : 0;
    const int multiple = grouped ? c.group : 4;
    c.rows = random.between(1, 100);
    c.cols = random.between(1, 1024 / multiple) * multiple;
    c.tokens = random.between(1, 20);
    if (random.chance(60)) {  // beyond every tile, and every sum of 16 bits
        c.rows = random.between(1, 33);
        c.cols = random.between(1, 9000 / multiple) * multiple;
        c.tokens = random.chance(2) ? 1 : random.between(2, 40);
    }
    if (random.chance(40)) {  // on both sides of every choice by tokens
        c.rows = random.between(1, 70);
        c.cols = random.between(1, 1024 / multiple) * multiple;
        c.tokens = random.chance(2) ? random.between(10, 70) : random.between(1, 300);
    }
    if (random.chance(2000)) {
        c.rows = 1;
        c.cols = 65536;
        c.tokens = random.between(1, 2);
    }
    c.at_end = random.chance(2);
    c.text = "rows " + std::to_string(c.rows) + ", cols " + std::to_string(c.cols) + ", group " + std::to_string(c.group) + ", tokens " +
             std::to_string(c.tokens);
    const int kind = random.between(0, 5);
    c.w.resize(c.at(c.rows, 0));
    for (size_t i = 0; i < c.w.size(); ++i) {
        c.w[i] = static_cast<int8_t>(kind == 0 ? 1 : kind == 1 ? -1 : kind == 2 ? static_cast<int>(i % 2) * 2 - 1 : random.between(-1, 1));
    }
    c.d.resize(static_cast<size_t>(c.rows * c.groups()));
    for (uint16_t& bits : c.d) bits = random.chance(4) ? static_cast<uint16_t>(random.next()) : f16_from_f32(random.unit());
    return c;
}

int blocks_of(const Case& c) { return (c.rows + kTernaryRows - 1) / kTernaryRows; }

// As kernels.h describes a block; bits that stand for nothing are anything.
const uint8_t* in_blocks(Random& random, const Case& c) {
    const size_t row_bytes = ternary_row_bytes(c.cols), block_bytes = row_bytes * kTernaryRows;
    const size_t bytes = static_cast<size_t>(blocks_of(c)) * block_bytes;
    uint8_t* out = codes.place<uint8_t>(bytes, c.at_end);
    for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<uint8_t>(random.next());
    for (int r = 0; r < c.rows; ++r) {
        for (int col = 0; col < c.cols; ++col) {
            uint8_t& byte = out[static_cast<size_t>(r / kTernaryRows) * block_bytes + static_cast<size_t>(col / 16 * 64 + r % kTernaryRows * 4 + col % 4)];
            const int shift = col % 16 / 4 * 2;
            byte = static_cast<uint8_t>((byte & ~(3 << shift)) | (c.w[c.at(r, col)] + 1) << shift);
        }
    }
    return out;
}

const uint16_t* scales_in_blocks(const Case& c) {
    const size_t groups = static_cast<size_t>(c.groups()), block = kTernaryRows;
    const size_t count = static_cast<size_t>(blocks_of(c)) * groups * block;
    uint16_t* out = scale_bits.place<uint16_t>(count, c.at_end);
    for (size_t i = 0; i < count; ++i) out[i] = 0x7e00;  // of rows that do not exist
    for (size_t r = 0; r < static_cast<size_t>(c.rows); ++r) {
        for (size_t g = 0; g < groups; ++g) out[(r / block * groups + g) * block + r % block] = c.d[r * groups + g];
    }
    return out;
}

RoundedTokens some_tokens(Random& random, const Case& c, const KernelSet& set, uint64_t seed, bool* held) {
    const size_t row = static_cast<size_t>(padded(c.cols, 64)), stride = row + 64 * static_cast<size_t>(random.between(0, 1));
    const size_t count = c.group > 0 ? static_cast<size_t>(c.groups()) : 1, width = c.group > 0 ? static_cast<size_t>(c.group) : row;
    const size_t offset_stride = count + static_cast<size_t>(random.between(0, 2)), n = static_cast<size_t>(c.tokens);
    int8_t* q = activations.place<int8_t>((n - 1) * stride + row, c.at_end);
    int32_t* offsets = sums.place<int32_t>((n - 1) * offset_stride + count, c.at_end);
    for (size_t t = 0; t < n; ++t) {
        check::fill_activations(random, q + t * stride, c.cols, static_cast<int>(row));
        set.code_offsets(offsets + t * offset_stride, q + t * stride, c.cols, c.group);
        for (size_t i = 0; i < count; ++i) {
            int32_t sum = 0;
            for (size_t k = 0; k < width; ++k) sum -= q[t * stride + i * width + k];
            *held = *held && check::equal("code_offsets", &set, seed, c.text.c_str(), offsets + t * offset_stride + i, &sum, 1);
        }
    }
    *held = *held && check::untouched("code_offsets", &set, seed, sums);
    return {q, stride, offsets, offset_stride, c.tokens};
}

int32_t sum_of(const Case& c, const int8_t* q, int r, int from, int end) {
    int64_t sum = 0;
    for (int i = from; i < end; ++i) sum += c.w[c.at(r, i)] * q[i];
    return static_cast<int32_t>(sum);
}

bool rounded_case(bool grouped, uint64_t seed) {
    const char* name = grouped ? "ternary_grouped" : "ternary";
    for (const KernelSet* set : check::sets()) {
        Random random(seed);  // the same case for every set
        const Case c = make_case(random, grouped);
        bool held = true;
        const RoundedTokens tokens = some_tokens(random, c, *set, seed, &held);
        if (!held) return false;
        const TernaryBlocks blocks{in_blocks(random, c), scales_in_blocks(c), blocks_of(c), c.cols, c.group};
        const size_t rows = static_cast<size_t>(blocks_of(c)) * kTernaryRows, stride = rows + static_cast<size_t>(random.between(0, 20));
        const size_t room = static_cast<size_t>(c.tokens - 1) * stride + rows;
        int32_t* ints = output.place<int32_t>(room, c.at_end);  // of the same size as floats
        float* floats = reinterpret_cast<float*>(ints);
        if (grouped) {
            set->ternary_grouped(floats, stride, blocks, tokens);
        } else {
            set->ternary(ints, stride, blocks, tokens);
        }
        if (!check::untouched(name, set, seed, output)) return false;
        for (int t = 0; t < c.tokens; ++t) {
            const int8_t* q = tokens.q + static_cast<size_t>(t) * tokens.q_stride;
            for (int r = 0; r < c.rows; ++r) {
                const size_t i = static_cast<size_t>(t) * stride + static_cast<size_t>(r);
                if (!grouped) {
                    const int32_t want = sum_of(c, q, r, 0, c.cols);
                    if (!check::equal(name, set, seed, c.text.c_str(), ints + i, &want, 1)) return false;
                    continue;
                }
                float want = 0.0f;
                for (int g = 0; g < c.groups(); ++g) {
                    want = fmaf(c.scale(r, g), static_cast<float>(sum_of(c, q, r, g * c.group, (g + 1) * c.group)), want);
                }
                if (!check::equal(name, set, seed, c.text.c_str(), floats + i, &want, 1)) return false;
            }
        }
    }
    return true;
}

float tree(float* lane) {
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < step; ++i) lane[i] += lane[i + step];
    }
    return lane[0];
}

float float_sum(const Case& c, const float* x, int r) {
    float lane[16] = {};
    const int width = c.group > 0 ? c.group : c.cols;
    for (int g = 0; g * width < c.cols; ++g) {
        float part[16] = {};
        for (int i = g * width; i < (g + 1) * width; ++i) part[i % 16] = fmaf(static_cast<float>(c.w[c.at(r, i)]), x[i], part[i % 16]);
        for (int l = 0; l < 16; ++l) lane[l] = c.group > 0 ? fmaf(c.scale(r, g), part[l], lane[l]) : part[l];
    }
    return tree(lane);
}

bool float_case(uint64_t seed) {
    Random random(seed);
    const Case c = make_case(random, random.chance(2));
    const size_t row_bytes = ternary_row_bytes(c.cols), n = static_cast<size_t>(c.tokens), rows = static_cast<size_t>(c.rows);
    uint8_t* packed = codes.place<uint8_t>(rows * row_bytes, c.at_end);
    memset(packed, 0, rows * row_bytes);
    for (int r = 0; r < c.rows; ++r) {
        for (int i = 0; i < c.cols; ++i) packed[static_cast<size_t>(r) * row_bytes + static_cast<size_t>(i / 4)] |= static_cast<uint8_t>((c.w[c.at(r, i)] + 1) << i % 4 * 2);
    }
    uint16_t* d = scale_bits.place<uint16_t>(c.d.size(), c.at_end);
    if (!c.d.empty()) memcpy(d, c.d.data(), c.d.size() * 2);
    const size_t row = static_cast<size_t>(padded(c.cols, 16)), stride = row + static_cast<size_t>(random.between(0, 3));
    float* x = inputs.place<float>((n - 1) * stride + row, c.at_end);
    for (size_t t = 0; t < n; ++t) check::fill_floats(random, x + t * stride, c.cols, padded(c.cols, 16));
    std::vector<float> want;
    for (size_t t = 0; t < n; ++t) {
        for (int r = 0; r < c.rows; ++r) want.push_back(float_sum(c, x + t * stride, r));
    }
    for (const KernelSet* set : check::sets()) {
        float* out = output.place<float>(n * rows, c.at_end);
        set->ternary_f32(out, rows, packed, d, c.group, c.rows, c.cols, x, stride, c.tokens);
        if (!check::untouched("ternary_f32", set, seed, output)) return false;
        if (!check::equal("ternary_f32", set, seed, c.text.c_str(), out, want.data(), want.size())) return false;
    }
    return true;
}

}  // namespace

int main() {
    const long cases = check::cases() / 4;
    check::family("ternary", cases, [](uint64_t seed) { return rounded_case(false, seed); });
    check::family("ternary_grouped", cases, [](uint64_t seed) { return rounded_case(true, seed); });
    check::family("ternary_f32", cases, float_case);
    return check::finish();
}
