// The kernels with exact integer results (signs, grouped signs, int8 matrices), every set against sums written
// here in the plainest way; and the choice of a set.
#include <string>

#include "kernels_checks.h"

using namespace onebit;
using check::Random;

namespace {

Guarded packed(16u << 20), table(24u << 20), activations(4u << 20), output(4u << 20), official(4u << 20),
    scale_bits(1u << 20);

// One way to multiply by signs.
struct Width {
    int most;  // activations are in -most..most
    const char *sign_name, *grouped_name;
    SignProduct KernelSet::*product;
};
constexpr Width kInt8 = {127, "sign_i8", "grouped_i8", &KernelSet::i8};
constexpr Width kInt8Many = {127, "sign_i8_many", "grouped_i8_many", &KernelSet::i8_many};
constexpr Width kInt4 = {7, "sign_i4", "grouped_i4", &KernelSet::i4};

struct SignCase {
    int rows, cols, tokens;
    std::vector<uint8_t> signs;     // (rows, cols / 8)
    std::vector<int8_t> q;          // (tokens, padded(cols, 64))
    std::vector<int32_t> expected;  // (tokens, rows, cols / group) sums of each group of columns
    std::string shape;
};

int64_t stride_of(int cols) { return padded(cols, 64); }

SignCase make_case(Random& random, int multiple, int group_cols, int most) {
    SignCase c;
    c.rows = random.between(1, 130);
    c.cols = random.between(1, 512 / multiple) * multiple;
    c.tokens = random.between(1, 9);
    if (random.chance(100)) {  // beyond every internal tile and 16-bit sum
        c.rows = random.between(1, 5);
        c.cols = random.between(1, 12000 / multiple) * multiple;
        c.tokens = random.chance(2) ? 1 : random.between(2, 40);
    }
    if (random.chance(100)) {  // on both sides of every choice by tokens
        c.rows = random.between(1, 130);
        c.cols = random.between(1, 640 / multiple) * multiple;
        c.tokens = random.chance(2) ? random.between(10, 70) : random.between(1, 300);
    }
    if (random.chance(2000)) {
        c.rows = 1;
        c.cols = 65536;
        c.tokens = random.between(1, 2);
    }
    c.shape =
        "rows " + std::to_string(c.rows) + ", cols " + std::to_string(c.cols) + ", tokens " + std::to_string(c.tokens);
    const size_t row_bytes = static_cast<size_t>(c.cols) / 8, stride = static_cast<size_t>(stride_of(c.cols));
    c.signs.resize(static_cast<size_t>(c.rows) * row_bytes);
    check::fill_signs(random, c.signs.data(), c.signs.size());
    c.q.resize(static_cast<size_t>(c.tokens) * stride);
    for (int t = 0; t < c.tokens; t++) {
        check::fill_activations(random, c.q.data() + static_cast<size_t>(t) * stride, c.cols, static_cast<int>(stride),
                                most);
    }
    const int group = group_cols ? group_cols : c.cols;
    for (int t = 0; t < c.tokens; t++) {
        for (int r = 0; r < c.rows; r++) {
            const uint8_t* bits = c.signs.data() + static_cast<size_t>(r) * row_bytes;
            const int8_t* a = c.q.data() + static_cast<size_t>(t) * stride;
            for (int g = 0; g < c.cols; g += group) {
                int64_t sum = 0;
                for (int i = g; i < g + group; i++) sum += (bits[i / 8] >> i % 8 & 1) ? -a[i] : a[i];
                c.expected.push_back(static_cast<int32_t>(sum));
            }
        }
    }
    return c;
}

int blocks_of(const KernelSet* set, const SignCase& c) {
    return (c.rows + set->sign_row_block - 1) / set->sign_row_block;
}

// Packs every block from a copy that ends or begins at a forbidden page.
const uint8_t* pack(const KernelSet* set, const SignCase& c, bool at_end) {
    const size_t block_bytes = set->sign_block_bytes(c.cols), row_bytes = static_cast<size_t>(c.cols) / 8;
    const int n_blocks = blocks_of(set, c);
    uint8_t* blocks = packed.place<uint8_t>(static_cast<size_t>(n_blocks) * block_bytes, at_end);
    uint8_t* source = official.place<uint8_t>(c.signs.size(), at_end);
    memcpy(source, c.signs.data(), c.signs.size());
    for (int b = 0; b < n_blocks; b++) {
        const int first = b * set->sign_row_block;
        const int rows = c.rows - first < set->sign_row_block ? c.rows - first : set->sign_row_block;
        set->sign_pack(blocks + static_cast<size_t>(b) * block_bytes, source + static_cast<size_t>(first) * row_bytes,
                       rows, c.cols);
    }
    return blocks;
}

// Columns [c0, c0 + cols) of all tokens.
const uint8_t* build_tables(const KernelSet* set, const Width& width, const SignCase& c, bool at_end, size_t table_stride,
                            int c0, int cols) {
    const size_t bytes = (set->*width.product).table_bytes(cols), stride = static_cast<size_t>(stride_of(c.cols));
    uint8_t* tables = table.place<uint8_t>(static_cast<size_t>(c.tokens - 1) * table_stride + bytes, at_end);
    int8_t* q = activations.place<int8_t>(c.q.size(), at_end);
    memcpy(q, c.q.data(), c.q.size());
    for (int t = 0; t < c.tokens; t++) {
        (set->*width.product).table_build(tables + static_cast<size_t>(t) * table_stride,
                                          q + static_cast<size_t>(t) * stride + c0, cols);
    }
    return tables;
}

// Calls multiply(blocks from column c0 on, c0, columns, tables, table_stride) for tiles of `tile` columns, the last of which
// may be narrower. False when a table was written beyond its end.
template <class F>
bool by_tiles(const KernelSet* set, const Width& width, const SignCase& c, uint64_t seed, const uint8_t* bits, int tile,
              size_t gap, bool at_end, F multiply) {
    for (int c0 = 0; c0 < c.cols; c0 += tile) {
        const int cols = c.cols - c0 < tile ? c.cols - c0 : tile;
        const size_t table_stride = (set->*width.product).table_bytes(cols) + gap;
        const uint8_t* tables = build_tables(set, width, c, at_end, table_stride, c0, cols);
        if (!check::untouched(width.sign_name, set, seed, table)) return false;
        const SignBlocks blocks{bits + set->sign_block_bytes(c0), set->sign_block_bytes(c.cols), blocks_of(set, c)};
        multiply(blocks, c0, cols, tables, table_stride);
    }
    return true;
}

// All columns at once, or some multiple of `unit`.
int random_tile(Random& random, int cols, int unit) {
    return random.chance(2) ? cols : random.between(1, (cols + unit - 1) / unit) * unit;
}

bool unpacks(const KernelSet* set, uint64_t seed, const SignCase& c, const uint8_t* blocks) {
    const size_t row_bytes = static_cast<size_t>(c.cols) / 8;
    for (int r = 0; r < c.rows; r++) {
        uint8_t* row = official.place<uint8_t>(row_bytes, r % 2 == 0);
        const size_t block = static_cast<size_t>(r / set->sign_row_block);
        set->sign_unpack_row(row, blocks + block * set->sign_block_bytes(c.cols), r % set->sign_row_block, c.cols);
        if (!check::equal("sign_unpack_row", set, seed, c.shape.c_str(), row,
                          c.signs.data() + static_cast<size_t>(r) * row_bytes, row_bytes) ||
            !check::untouched("sign_unpack_row", set, seed, official)) {
            return false;
        }
    }
    return true;
}

bool sign_case(const Width& width, uint64_t seed) {
    Random random(seed);
    const SignCase c = make_case(random, 8, 0, width.most);
    const bool at_end = random.chance(2);
    const size_t gap = random.chance(2) ? 0 : static_cast<size_t>(random.between(1, 100));
    const int tile = random_tile(random, c.cols, 64);
    for (const KernelSet* set : check::sets()) {
        const uint8_t* blocks = pack(set, c, at_end);
        if (!check::untouched("sign_pack", set, seed, packed) || (seed % 8 == 0 && !unpacks(set, seed, c, blocks)))
            return false;
        const size_t rows = static_cast<size_t>(blocks_of(set, c) * set->sign_row_block), out_stride = rows + gap;
        int32_t* out = output.place<int32_t>(static_cast<size_t>(c.tokens - 1) * out_stride + rows, at_end);
        const bool held = by_tiles(set, width, c, seed, blocks, tile, gap, at_end,
                                   [&](SignBlocks part, int c0, int cols, const uint8_t* tables, size_t table_stride) {
                                       (set->*width.product).sign(out, out_stride, part, cols, tables, table_stride,
                                                                  c.tokens, c0 > 0);
                                   });
        if (!held) return false;
        if (!check::untouched(width.sign_name, set, seed, output)) return false;
        for (int t = 0; t < c.tokens; t++) {
            const size_t token = static_cast<size_t>(t);
            if (!check::equal(width.sign_name, set, seed, c.shape.c_str(), out + token * out_stride,
                              c.expected.data() + token * static_cast<size_t>(c.rows), static_cast<size_t>(c.rows))) {
                return false;
            }
        }
    }
    return true;
}

bool grouped_case(const Width& width, uint64_t seed) {
    Random random(seed);
    const SignCase c = make_case(random, 128, 128, width.most);
    const size_t groups = static_cast<size_t>(c.cols / 128), rows_wanted = static_cast<size_t>(c.rows);
    std::vector<uint16_t> d(rows_wanted * groups);  // (rows, groups)
    const int kind = random.between(0, 5);
    for (uint16_t& bits : d)
        bits =
            kind == 0 ? static_cast<uint16_t>(random.next()) : f16_from_f32(random.unit() * (kind == 1 ? 1e-6f : 1.0f));
    std::vector<float> want;
    for (size_t i = 0; i < static_cast<size_t>(c.tokens) * rows_wanted; i++) {
        float acc = 0.0f;
        for (size_t g = 0; g < groups; g++) {
            acc = fmaf(f32_from_f16(d[i % rows_wanted * groups + g]), static_cast<float>(c.expected[i * groups + g]),
                       acc);
        }
        want.push_back(acc);
    }
    const bool at_end = random.chance(2);
    const int tile = random_tile(random, c.cols, 128);
    for (const KernelSet* set : check::sets()) {
        const uint8_t* blocks = pack(set, c, at_end);
        const size_t block = static_cast<size_t>(set->sign_row_block), rows = static_cast<size_t>(blocks_of(set, c)) * block;
        uint16_t* scales = scale_bits.place<uint16_t>(rows * groups, at_end);
        for (size_t r = 0; r < rows; r++) {
            for (size_t g = 0; g < groups; g++) {
                scales[(r / block * groups + g) * block + r % block] =
                    r < rows_wanted ? d[r * groups + g] : uint16_t{0x3c00};
            }
        }
        float* out = output.place<float>(static_cast<size_t>(c.tokens) * rows, at_end);
        const bool held = by_tiles(set, width, c, seed, blocks, tile, 0, at_end,
                                   [&](SignBlocks part, int c0, int cols, const uint8_t* tables, size_t table_stride) {
                                       const uint16_t* d_of_tile = scales + static_cast<size_t>(c0 / 128) * block;
                                       (set->*width.product).grouped(out, rows, part, d_of_tile, cols, tables, table_stride,
                                                                     c.tokens, c0 > 0);
                                   });
        if (!held) return false;
        if (!check::untouched(width.grouped_name, set, seed, output)) return false;
        for (size_t t = 0; t < static_cast<size_t>(c.tokens); t++) {
            if (!check::equal(width.grouped_name, set, seed, c.shape.c_str(), out + t * rows,
                              want.data() + t * rows_wanted, rows_wanted))
                return false;
        }
    }
    return true;
}

bool q8_case(uint64_t seed) {
    Random random(seed);
    const int rows = random.between(1, 140), cols = check::some_size(random, 9000);
    const int tokens = random.chance(50) ? random.between(1, 300) : random.between(1, random.chance(4) ? 40 : 9);
    const bool at_end = random.chance(2);
    const size_t stride = static_cast<size_t>(stride_of(cols)), gap = static_cast<size_t>(random.between(0, 3));
    int8_t* w = official.place<int8_t>(static_cast<size_t>(rows) * stride, at_end);
    int8_t* q = activations.place<int8_t>(static_cast<size_t>(tokens - 1) * (stride + gap) + stride, at_end);
    const int kind = random.between(0, 4);
    for (int r = 0; r < rows; r++) {
        for (size_t i = 0; i < stride; i++) {
            const int value = kind == 0 ? -128 : kind == 1 ? 127 : random.between(-128, 127);
            w[static_cast<size_t>(r) * stride + i] = static_cast<int8_t>(i < static_cast<size_t>(cols) ? value : 0);
        }
    }
    for (int t = 0; t < tokens; t++)
        check::fill_activations(random, q + static_cast<size_t>(t) * (stride + gap), cols, static_cast<int>(stride));
    std::vector<int32_t> want(static_cast<size_t>(tokens) * (static_cast<size_t>(rows) + gap));
    const size_t out_stride = static_cast<size_t>(rows) + gap;
    for (size_t t = 0; t < static_cast<size_t>(tokens); t++) {
        for (size_t r = 0; r < static_cast<size_t>(rows); r++) {
            int64_t sum = 0;
            for (size_t i = 0; i < static_cast<size_t>(cols); i++) sum += w[r * stride + i] * q[t * (stride + gap) + i];
            want[t * out_stride + r] = static_cast<int32_t>(sum);
        }
    }
    const std::string shape = "rows " + std::to_string(rows) + ", cols " + std::to_string(cols);
    for (const KernelSet* set : check::sets()) {
        int32_t* out =
            output.place<int32_t>(static_cast<size_t>(tokens - 1) * out_stride + static_cast<size_t>(rows), at_end);
        set->q8_i8(out, out_stride, w, rows, cols, q, stride + gap, tokens);
        if (!check::untouched("q8_i8", set, seed, output)) return false;
        for (size_t t = 0; t < static_cast<size_t>(tokens); t++) {
            if (!check::equal("q8_i8", set, seed, shape.c_str(), out + t * out_stride, want.data() + t * out_stride,
                              static_cast<size_t>(rows)))
                return false;
        }
    }
    return true;
}

void expect(bool held, const char* what) {
    if (held) {
        check::passed++;
    } else {
        check::fail("%s", what);
    }
}

void choice() {
    const char* why = nullptr;
    const KernelSet* best = choose_kernels(nullptr, &why);
    expect(best != nullptr && !why, "there is a best set");
    expect(choose_kernels("", &why) == best, "an empty name means the best set");
    expect(choose_kernels("scalar", &why) == &kernels_scalar, "scalar can be chosen by name");
    expect(!choose_kernels("sse9", &why) && why && strstr(why, "Known: scalar") && strstr(why, "sse9"),
           "an unknown name is explained");
    int count = 0;
    const IsaEntry* entries = isa_table(&count);
    expect(count == 8, "all names are listed");
    for (int i = 0; i < count; i++) {
        why = nullptr;
        const KernelSet* set = choose_kernels(entries[i].name, &why);
        const bool usable = entries[i].state == IsaState::usable && entries[i].runs;
        expect((set != nullptr) == usable && (set != nullptr) == (why == nullptr),
               "a set can be chosen, or it is said why not");
        if (set) expect(strcmp(set->name, entries[i].runs) == 0, "a set knows its name");
        if (why) printf("  %s\n", why);
        if (entries[i].state == IsaState::not_built)
            expect(why && strstr(why, "not built into this addon"), "a foreign set is explained");
    }
    printf("best: %s\n", best->name);
}

}  // namespace

int main() {
    choice();
    for (const Width& width : {kInt8, kInt8Many, kInt4}) {
        check::family(width.sign_name, check::cases(), [&](uint64_t seed) { return sign_case(width, seed); });
        check::family(width.grouped_name, check::cases(), [&](uint64_t seed) { return grouped_case(width, seed); });
    }
    check::family("q8_i8", check::cases(), q8_case);
    return check::finish();
}
