// Signs, ternary codes and int8 rows times int8 activations of several tokens by tiles (tiles.h), written once over `Tiles`.
// Included inside the anonymous namespace of a set with tiles, after the surrounding file has
//
//     Tiles                              see tiles.h
//     spread_signs<N>(to, from, half)    32 columns of a block of signs as +-1: 8 lines each of N tiles of 16 rows
//     spread_codes(to, from)             16 columns of 16 rows of ternary codes as -1, 0, 1: 4 lines
//     spread_bytes(to, rows, stride, last)  64 columns of 16 rows of bytes: 16 lines; rows after `last` are like it
//     order_columns(to, q)               64 activations in the order in which spread_signs has columns
//     Ints, Floats                       16 of them, with the names that the sets' *_vectors.inl have
//     fewer()                            the set that multiplies a few tokens where that is faster
//
// Tokens are left tiles, 16 of them by 64 columns as they lie. Weights are right tiles: a line has 4 columns of 16 rows, so they
// are spread out first, some rows and columns at a time, into memory that stays in the first-level cache while all tokens meet
// it; the first tokens multiply each 64 columns as soon as they are there. Four sums are kept at once: 32 tokens by 32 rows, or
// up to 16 tokens by 64 rows.
//
//     tokens 0..15  | 64 columns x 16 |     | 4 columns of 16 rows | x 16 lines       sums: 16 tokens x 16 rows, as `out` lies
//     tokens 16..31 |                 |  x  | the next 16 rows     |

constexpr int kLineBytes = 64, kTileLines = 16, kTileBytes = kTileLines * kLineBytes, kStep = 64;  // kStep: columns of a tile
constexpr int kSpreadBytes = 16 << 10;
constexpr int kSumRows = 64, kSumTokens = 32;  // at most; of kSums sums
constexpr int kSums = 1024;
constexpr int kNarrowest = 64;                 // columns of a group
// Fewer tokens are multiplied by the other set.
constexpr int kLeastSigns = 4, kLeastTernary = 4, kLeastBytes = 4;
constexpr int kTableCols = kSpreadBytes / kTileLines / 2;

// Rounded activations as a left tile reads them.
struct LeftTokens {
    const uint8_t* at;
    size_t stride;
    int count;
};

// ---- weights, as right tiles ---------------------------------------------------------------------------------

struct SignSource {
    SignBlocks blocks;
    int tiles() const { return blocks.count * 4; }
    int rows(int) const { return kTileLines; }
    template <int N>
    ONEBIT_INLINE void spread(int8_t* to, int tile, int c) const {
        const uint8_t* from = blocks.bits + static_cast<size_t>(tile / 4) * blocks.stride + static_cast<size_t>(c) * 8;
        unrolled<2>([&](auto half) ONEBIT_INLINE_LAMBDA { spread_signs<N>(to + half * 512, from + half * 256, tile % 4 / 2); });
    }
};

struct CodeSource {
    TernaryBlocks blocks;
    int tiles() const { return blocks.count; }
    int rows(int) const { return kTileLines; }
    template <int N>
    ONEBIT_INLINE void spread(int8_t* to, int tile, int c) const {
        const int parts = blocks.cols - c < kStep ? (blocks.cols - c + 15) / 16 : 4;
        const size_t block_bytes = static_cast<size_t>((blocks.cols + 15) / 16) * 64;
        unrolled<N>([&](auto i) ONEBIT_INLINE_LAMBDA {
            const int block = tile + i < blocks.count ? tile + i : blocks.count - 1;
            const uint8_t* from = blocks.codes + static_cast<size_t>(block) * block_bytes + static_cast<size_t>(c) * 4;
            for (int k = 0; k < parts; k++) spread_codes(to + i * kTileBytes + k * 256, from + k * 64);
        });
    }
};

struct ByteSource {
    const int8_t* w;
    size_t stride;
    int n_rows;
    int tiles() const { return (n_rows + kTileLines - 1) / kTileLines; }
    int rows(int tile) const { return n_rows - tile * kTileLines < kTileLines ? n_rows - tile * kTileLines : kTileLines; }
    template <int N>
    ONEBIT_INLINE void spread(int8_t* to, int tile, int c) const {
        for (int i = 0; i < N; i++) {
            const int row = (tile + i < tiles() ? tile + i : tiles() - 1) * kTileLines;
            spread_bytes(to + i * kTileBytes, w + static_cast<size_t>(row) * stride + c, stride, n_rows - row - 1);
        }
    }
};

// ---- sums ------------------------------------------------------------------------------------------------------

// Adds the products of `steps` times 64 columns to tiles 0 .. L * R - 1. second: bytes to the lines of the second left tile.
template <int L, int R>
ONEBIT_INLINE void add_products(Tiles& tiles, const uint8_t* left, size_t left_stride, size_t second, const int8_t* right, int steps) {
    for (int s = 0; s < steps; s++, left += kStep, right += R * kTileBytes) {
        unrolled<L>([&](auto l) ONEBIT_INLINE_LAMBDA { tiles.load<4 + l.value>(left + l.value * second, left_stride); });
        unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
            constexpr int kRight = 6 + r.value % 2;
            tiles.load<kRight>(right + r.value * kTileBytes, kLineBytes);
            unrolled<L>([&](auto l) ONEBIT_INLINE_LAMBDA { tiles.dot<l.value * R + r.value, 4 + l.value, kRight>(); });
        });
    }
}

// What meets: tokens [first, first + count), of which a left tile has the first `half`, and R tiles of rows from `tile` on,
// columns [c0, c1).
struct Meeting {
    int first, count, half;
    int tile, c0, c1;
    bool spread;  // the weights are to be spread out
    size_t token() const { return static_cast<size_t>(first); }
};

// one(Meeting) for all rows, columns and tokens: kCols columns of R tiles of rows are spread out, and meet all tokens.
template <int L, int R, class F>
ONEBIT_INLINE void by_meetings(Tiles& tiles, int n_tiles, int cols, int n_tokens, const F& one) {
    constexpr int kCols = kSpreadBytes / (R * kTileLines);
    const int groups = (n_tokens + L * kTileLines - 1) / (L * kTileLines), end = (cols + kStep - 1) / kStep * kStep;
    int configured = 0;
    for (int tile = 0; tile < n_tiles; tile += R) {
        for (int c0 = 0; c0 < end; c0 += kCols) {
            for (int g = 0, first = 0; g < groups; g++) {
                const int count = (n_tokens - first + groups - g - 1) / (groups - g), half = (count + L - 1) / L;
                if (count != configured) tiles.configure(half, L == 1 ? half : count - half);
                configured = count;
                one(Meeting{first, count, half, tile, c0, c0 + kCols < end ? c0 + kCols : end, g == 0});
                first += count;
            }
        }
    }
    tiles.release();
}

// Products of columns [c, c1) of a meeting.
template <int L, int R, class Source>
ONEBIT_INLINE void multiply_part(Tiles& tiles, const Source& source, const LeftTokens& tokens, const Meeting& m, int8_t* spread, int c,
                                 int c1) {
    const uint8_t* left = tokens.at + m.token() * tokens.stride + c;
    const size_t second = static_cast<size_t>(m.half) * tokens.stride;
    int8_t* right = spread + (c - m.c0) / kStep * R * kTileBytes;
    const int steps = (c1 - c) / kStep;
    for (int s = 0; s < steps && m.spread; s++) source.template spread<R>(right + s * R * kTileBytes, m.tile, c + s * kStep);
    add_products<L, R>(tiles, left, tokens.stride, second, right, steps);
}

// ---- whole rows ------------------------------------------------------------------------------------------------

// A tile with fewer rows than it has room for, by way of memory.
inline void store_narrow(int32_t* out, size_t out_stride, const int32_t (&sums)[kTileLines][kTileLines], int tokens, int rows, bool add) {
    for (int t = 0; t < tokens; t++, out += out_stride) {
        for (int r = 0; r < rows; r++) out[r] = add ? out[r] + sums[t][r] : sums[t][r];
    }
}

// out (+)= the sums of all columns.
template <int L, int R, class Source>
void sum_rows(int32_t* out, size_t out_stride, const Source& source, int cols, const LeftTokens& tokens, bool add) {
    alignas(64) int8_t spread[kSpreadBytes] = {};
    Tiles tiles;
    by_meetings<L, R>(tiles, source.tiles(), cols, tokens.count, [&](const Meeting& m) ONEBIT_INLINE_LAMBDA {
        int32_t* const to = out + m.token() * out_stride + m.tile * kTileLines;
        const size_t second = static_cast<size_t>(m.half) * out_stride, bytes = out_stride * sizeof *out;
        const bool adds = add || m.c0 > 0;
        // The sums of 16 rows that `out` has room for; others stay apart.
        const auto whole = [&](int r) { return m.tile + r < source.tiles() && source.rows(m.tile + r) == kTileLines; };
        unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
            if (adds && whole(i.value % R)) {
                tiles.load<i.value>(to + i.value / R * second + i.value % R * kTileLines, bytes);
            } else {
                tiles.zero<i.value>();
            }
        });
        multiply_part<L, R>(tiles, source, tokens, m, spread, m.c0, m.c1);
        unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
            constexpr int kLeft = i.value / R, kRight = i.value % R;
            int32_t* at = to + kLeft * second + kRight * kTileLines;
            if (whole(kRight)) {
                tiles.store<i.value>(at, bytes);
            } else if (m.tile + kRight < source.tiles()) {
                alignas(64) int32_t sums[kTileLines][kTileLines];
                tiles.store<i.value>(sums, kLineBytes);
                store_narrow(at, out_stride, sums, kLeft == 0 ? m.half : m.count - m.half, source.rows(m.tile + kRight), adds);
            }
        });
    });
}

// ---- one scale per row and group of columns ------------------------------------------------------------------------

// scales(tile, group): of 16 rows.
template <int L, int R, class Source, class Scales>
void sum_groups(float* out, size_t out_stride, const Source& source, int cols, int group, const LeftTokens& tokens, bool add,
                const Scales& scales) {
    alignas(64) int8_t spread[kSpreadBytes] = {};
    alignas(64) float d[kSpreadBytes / (R * kTileLines) / kNarrowest][R * kTileLines];
    alignas(64) float acc[kSums];
    alignas(64) int32_t sums[kSums];
    constexpr int kRow = R * kTileLines;  // of acc and sums
    Tiles tiles;
    by_meetings<L, R>(tiles, source.tiles(), cols, tokens.count, [&](const Meeting& m) ONEBIT_INLINE_LAMBDA {
        const int there = source.tiles() - m.tile < R ? source.tiles() - m.tile : R;
        float* const to = out + m.token() * out_stride + m.tile * kTileLines;
        const auto each = [&](const auto& f) ONEBIT_INLINE_LAMBDA {
            for (int t = 0; t < m.count; t++) {
                for (int r = 0; r < there; r++) f(to + static_cast<size_t>(t) * out_stride + r * kTileLines, acc + t * kRow + r * kTileLines);
            }
        };
        each([&](const float* from, float* a) ONEBIT_INLINE_LAMBDA { floats_store(a, add || m.c0 > 0 ? floats_load(from) : floats_zero()); });
        for (int c = m.c0; c < m.c1; c += group) {
            float* const scale = d[(c - m.c0) / group];
            for (int r = 0; r < R && m.spread; r++) floats_store(scale + r * kTileLines, floats_from_f16(scales(m.tile + (r < there ? r : there - 1), c / group)));
            unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA { tiles.zero<i.value>(); });
            multiply_part<L, R>(tiles, source, tokens, m, spread, c, c + group);
            unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
                tiles.store<i.value>(sums + i.value / R * m.half * kRow + i.value % R * kTileLines, kRow * sizeof *sums);
            });
            Floats by[R];
            unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA { by[r] = floats_load(scale + r.value * kTileLines); });
            for (int t = 0; t < m.count; t++) {
                unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
                    float* a = acc + t * kRow + r.value * kTileLines;
                    floats_store(a, floats_fma(by[r], floats_from_ints(ints_load(sums + t * kRow + r.value * kTileLines)), floats_load(a)));
                });
            }
        }
        each([&](float* at, const float* a) ONEBIT_INLINE_LAMBDA { floats_store(at, floats_load(a)); });
    });
}

// ---- the products ----------------------------------------------------------------------------------------------------

// A line more than the columns: rows a power of two apart would meet in the same few sets of a cache.
size_t tile_bytes(int cols) { return static_cast<size_t>((cols + kStep - 1) / kStep * kStep + kLineBytes); }

void tile_build(uint8_t* table, const int8_t* q, int cols) {
    for (int c = 0; c < cols; c += kStep) order_columns(table + c, q + c);
}

void tile_sign(int32_t* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* tables, size_t table_stride, int n_tokens,
               bool add) {
    const LeftTokens tokens{tables, table_stride, n_tokens};
    if (n_tokens <= kTileLines) return sum_rows<1, 4>(out, out_stride, SignSource{blocks}, cols, tokens, add);
    sum_rows<2, 2>(out, out_stride, SignSource{blocks}, cols, tokens, add);
}

void tile_grouped(float* out, size_t out_stride, SignBlocks blocks, const uint16_t* scales, int cols, const uint8_t* tables,
                  size_t table_stride, int n_tokens, bool add) {
    constexpr int kGroup = 128;
    const LeftTokens tokens{tables, table_stride, n_tokens};
    const size_t groups = blocks.stride / (kGroup * 8);  // of all columns
    const auto scales_of = [=](int tile, int group) {
        return scales + (static_cast<size_t>(tile / 4) * groups + static_cast<size_t>(group)) * 64 + tile % 4 * kTileLines;
    };
    if (n_tokens <= kTileLines) return sum_groups<1, 4>(out, out_stride, SignSource{blocks}, cols, kGroup, tokens, add, scales_of);
    sum_groups<2, 2>(out, out_stride, SignSource{blocks}, cols, kGroup, tokens, add, scales_of);
}

void tile_ternary(int32_t* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens given) {
    if (given.count < kLeastTernary) return fewer().ternary(out, out_stride, blocks, given);
    const LeftTokens tokens{reinterpret_cast<const uint8_t*>(given.q), given.q_stride, given.count};
    if (given.count <= kTileLines) return sum_rows<1, 4>(out, out_stride, CodeSource{blocks}, blocks.cols, tokens, false);
    sum_rows<2, 2>(out, out_stride, CodeSource{blocks}, blocks.cols, tokens, false);
}

void tile_ternary_grouped(float* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens given) {
    if (given.count < kLeastTernary) return fewer().ternary_grouped(out, out_stride, blocks, given);
    const LeftTokens tokens{reinterpret_cast<const uint8_t*>(given.q), given.q_stride, given.count};
    const auto groups = static_cast<size_t>(blocks.cols / blocks.group);
    const auto scales_of = [=](int tile, int group) {
        return blocks.scales + (static_cast<size_t>(tile) * groups + static_cast<size_t>(group)) * kTileLines;
    };
    if (given.count <= kTileLines) return sum_groups<1, 4>(out, out_stride, CodeSource{blocks}, blocks.cols, blocks.group, tokens, false, scales_of);
    sum_groups<2, 2>(out, out_stride, CodeSource{blocks}, blocks.cols, blocks.group, tokens, false, scales_of);
}

void tile_q8(int32_t* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const int8_t* q, size_t q_stride, int n_tokens) {
    if (n_tokens < kLeastBytes) return fewer().q8_i8(out, out_stride, w, n_rows, cols, q, q_stride, n_tokens);
    const auto stride = static_cast<size_t>((cols + kStep - 1) / kStep * kStep);
    const LeftTokens tokens{reinterpret_cast<const uint8_t*>(q), q_stride, n_tokens};
    if (n_tokens <= kTileLines) return sum_rows<1, 4>(out, out_stride, ByteSource{w, stride, n_rows}, cols, tokens, false);
    sum_rows<2, 2>(out, out_stride, ByteSource{w, stride, n_rows}, cols, tokens, false);
}

constexpr TileProducts tile_products(const char* name, bool (*as_plain)()) {
    return {.name = name,
            .signs = {nullptr, tile_bytes, tile_build, tile_sign, tile_grouped, kTableCols},
            .many_tokens = kLeastSigns,
            .ternary = tile_ternary,
            .ternary_grouped = tile_ternary_grouped,
            .q8_i8 = tile_q8,
            .as_plain = as_plain};
}
