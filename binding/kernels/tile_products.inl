// Signs, ternary codes and int8 rows times int8 activations of several tokens by tiles (tiles.h), written once over `Tiles`.
// Included inside the anonymous namespace of a set with tiles, after the surrounding file has
//
//     Tiles                              see tiles.h
//     spread_signs<N>(to, from, half)    32 columns of a block of signs as +-1: 8 lines each of N tiles of 16 rows
//     spread_codes(to, from)             16 columns of 16 rows of ternary codes as -1, 0, 1: 4 lines
//     spread_bytes(to, rows, stride, last)  64 columns of 16 rows of bytes: 16 lines; rows after `last` are like it
//     order_columns(to, q)               64 activations in the order in which spread_signs has columns
//     Ints, Floats                       16 of them, with the names that the sets' *_vectors.inl have
//     fetch(at)                          from memory into the second-level cache
//     fewer()                            the set that multiplies a few tokens where that is faster
//
// Tokens are left tiles, 16 of them by 64 columns as they lie. Weights are right tiles: a line has 4 columns of 16 rows, so they
// are spread out first, some rows and columns at a time, into memory that stays in the first-level cache while all tokens meet
// it. Four sums are kept at once: 32 tokens by 32 rows, or
// up to 16 tokens by 64 rows.
//
//     tokens 0..15  | 64 columns x 16 |     | 4 columns of 16 rows | x 16 lines       sums: 16 tokens x 16 rows, as `out` lies
//     tokens 16..31 |                 |  x  | the next 16 rows     |

constexpr int kLineBytes = 64, kTileLines = 16, kTileBytes = kTileLines * kLineBytes, kStep = 64;  // kStep: columns of a tile
constexpr size_t kFetchAhead = 16 << 10;
constexpr int kSpreadBytes = 16 << 10;  // of weights at a time
constexpr int kNarrowest = 64;    // columns of a group
constexpr int kChunkTokens = 64;  // that meet what is spread out; their sums stay in the first-level cache
constexpr int kTableCols = 1 << 14;  // whole rows: a column of a token is one byte
// Fewer tokens are multiplied by the other set.
constexpr int kLeastSigns = 4, kLeastTernary = 4, kLeastBytes = 16;

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
        for (int line = 0; line < 8; line++) fetch(from + line * kLineBytes + kFetchAhead);
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
            for (int k = 0; k < parts; k++) fetch(from + k * kLineBytes + kFetchAhead);
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
            const int8_t* from = w + static_cast<size_t>(row) * stride + c;
            for (int r = 0; r < kTileLines; r++) fetch(from + static_cast<size_t>(kTileLines * N + r) * stride);
            spread_bytes(to + i * kTileBytes, from, stride, n_rows - row - 1);
        }
    }
};

// ---- which weights meet which tokens ---------------------------------------------------------------------------

// Columns [c0, c1) of R tiles of rows from `tile` on.
struct Block {
    int tile, c0, c1;
    int steps() const { return (c1 - c0) / kStep; }
};

// The block after this one; of no columns after the last.
template <int R>
inline Block block_after(const Block& block, int n_tiles, int end) {
    constexpr int kCols = kSpreadBytes / (R * kTileLines);
    const bool wraps = block.c1 == end;
    const int tile = wraps ? block.tile + R : block.tile, c0 = tile >= n_tiles ? end : wraps ? 0 : block.c1;
    return {tile, c0, c0 + kCols < end ? c0 + kCols : end};
}

// What meets: tokens [first, first + count) of a call, of which the first left tile has `half`, and a block of weights. The sums of
// these tokens are `place` lines after those of the chunk's first.
struct Meeting {
    int first, count, half, place;
    Block now, next;
    int8_t* weights;           // `now`, spread out
    bool first_group, last_group;  // of the chunk's tokens
    bool begins, ends;         // of all columns
    size_t token() const { return static_cast<size_t>(first); }
};

#if defined(_MSC_VER) && !defined(__clang__)
#define ONEBIT_APART __declspec(noinline)
#else
#define ONEBIT_APART __attribute__((noinline))
#endif

template <int R, class Source>
ONEBIT_APART void spread_out(const Source& source, int8_t* to, const Block& block, int step, int end) {
    for (; step < end; step++) source.template spread<R>(to + step * R * kTileBytes, block.tile, block.c0 + step * kStep);
}

// one(Meeting) for all rows, columns and tokens. Where the last tokens have met 64 columns, those of the next block are spread out in
// their place, which is in the first-level cache then; and the processor always has tiles to multiply.
template <int L, int R, class Source, class F>
ONEBIT_INLINE void by_meetings(Tiles& tiles, const Source& source, int cols, int n_tokens, const F& one) {
    alignas(64) int8_t weights[kSpreadBytes] = {};
    const int end = (cols + kStep - 1) / kStep * kStep, n_tiles = source.tiles();
    const int chunks = (n_tokens + kChunkTokens - 1) / kChunkTokens;
    int configured = 0;
    for (int chunk = 0, from = 0; chunk < chunks; chunk++) {
        const int size = (n_tokens - from + chunks - chunk - 1) / (chunks - chunk);
        const int groups = (size + L * kTileLines - 1) / (L * kTileLines);
        Block block = block_after<R>({-R, 0, end}, n_tiles, end);
        spread_out<R>(source, weights, block, 0, block.steps());
        while (block.tile < n_tiles) {
            const Block next = block_after<R>(block, n_tiles, end);
            for (int g = 0, place = 0; g < groups; g++) {
                const int count = (size - place + groups - g - 1) / (groups - g), half = (count + L - 1) / L;
                if (count != configured) tiles.configure(half, L == 1 ? half : count - half);
                configured = count;
                one(Meeting{from + place, count, half, place, block, next, weights, g == 0, g + 1 == groups, block.c0 == 0, block.c1 == end});
                place += count;
            }
            spread_out<R>(source, weights, next, block.steps(), next.steps());
            block = next;
        }
        from += size;
    }
    tiles.release();
}

// Adds products of a meeting's columns [c, c1) to tiles 0 .. L * R - 1.
template <int L, int R, class Source>
ONEBIT_INLINE void add_products(Tiles& tiles, const Source& source, const LeftTokens& tokens, const Meeting& m, int c, int c1) {
    const uint8_t* left = tokens.at + m.token() * tokens.stride + c;
    const size_t second = static_cast<size_t>(m.half) * tokens.stride;
    const int steps = (c1 - m.now.c0) / kStep, to_spread = m.last_group ? m.next.steps() : 0;
    for (int s = (c - m.now.c0) / kStep; s < steps; s++, left += kStep) {
        const int8_t* right = m.weights + s * R * kTileBytes;
        unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
            constexpr int kRight = 6 + r.value % 2;
            tiles.load<kRight>(right + r.value * kTileBytes, kLineBytes);
            unrolled<L>([&](auto l) ONEBIT_INLINE_LAMBDA {
                if constexpr (r.value == 0) tiles.load<4 + l.value>(left + l.value * second, tokens.stride);
                tiles.dot<l.value * R + r.value, 4 + l.value, kRight>();
            });
        });
        if (s < to_spread) spread_out<R>(source, m.weights, m.next, s, s + 1);
    }
}

// ---- whole rows ------------------------------------------------------------------------------------------------

// Sums of fewer rows than a tile has.
inline void store_narrow(int32_t* out, size_t out_stride, const int32_t* sums, int sums_stride, int tokens, int rows) {
    for (int t = 0; t < tokens; t++) memcpy(out + static_cast<size_t>(t) * out_stride, sums + t * sums_stride, static_cast<size_t>(rows) * sizeof *out);
}

// out (+)= the sums of all columns. With `add`, source.rows are whole tiles.
template <int L, int R, class Source>
void sum_rows(int32_t* out, size_t out_stride, const Source& source, int cols, const LeftTokens& tokens, bool add) {
    constexpr int kRow = R * kTileLines, kTokens = L == 1 ? kTileLines : kChunkTokens;
    alignas(64) int32_t sums[kTokens * kRow];
    Tiles tiles;
    by_meetings<L, R>(tiles, source, cols, tokens.count, [&](const Meeting& m) ONEBIT_INLINE_LAMBDA {
        int32_t* const to = out + m.token() * out_stride + m.now.tile * kTileLines;
        const auto out_at = [&](int i) { return to + static_cast<size_t>(i / R * m.half) * out_stride + i % R * kTileLines; };
        const auto sums_at = [&](int i) { return sums + (m.place + i / R * m.half) * kRow + i % R * kTileLines; };
        const auto rows = [&](int i) { return m.now.tile + i % R < source.tiles() ? source.rows(m.now.tile + i % R) : 0; };
        unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
            if (!m.begins) {
                tiles.load<i.value>(sums_at(i), kRow * sizeof *sums);
            } else if (add && rows(i) > 0) {
                tiles.load<i.value>(out_at(i), out_stride * sizeof *out);
            } else {
                tiles.zero<i.value>();
            }
        });
        add_products<L, R>(tiles, source, tokens, m, m.now.c0, m.now.c1);
        unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
            if (m.ends && rows(i) == kTileLines) {
                tiles.store<i.value>(out_at(i), out_stride * sizeof *out);
            } else {
                tiles.store<i.value>(sums_at(i), kRow * sizeof *sums);
                if (m.ends) store_narrow(out_at(i), out_stride, sums_at(i), kRow, i < R ? m.half : m.count - m.half, rows(i));
            }
        });
    });
}

// ---- one scale per row and group of columns ------------------------------------------------------------------------

// scales(tile, group): of 16 rows.
template <int L, int R, class Source, class Scales>
void sum_groups(float* out, size_t out_stride, const Source& source, int cols, int group, const LeftTokens& tokens, bool add,
                const Scales& scales) {
    constexpr int kRow = R * kTileLines, kTokens = L == 1 ? kTileLines : kChunkTokens;
    alignas(64) float d[kSpreadBytes / kRow / kNarrowest][kRow];
    alignas(64) float acc[kTokens * kRow];
    alignas(64) int32_t sums[L * kTileLines * kRow];
    Tiles tiles;
    by_meetings<L, R>(tiles, source, cols, tokens.count, [&](const Meeting& m) ONEBIT_INLINE_LAMBDA {
        const int tile = m.now.tile, there = source.tiles() - tile < R ? source.tiles() - tile : R;
        float* const to = out + m.token() * out_stride + tile * kTileLines;
        float* const mine = acc + m.place * kRow;
        const auto each = [&](const auto& f) ONEBIT_INLINE_LAMBDA {
            for (int t = 0; t < m.count; t++) {
                for (int r = 0; r < there; r++) f(to + static_cast<size_t>(t) * out_stride + r * kTileLines, mine + t * kRow + r * kTileLines);
            }
        };
        if (m.begins) each([&](const float* from, float* a) ONEBIT_INLINE_LAMBDA { floats_store(a, add ? floats_load(from) : floats_zero()); });
        for (int c = m.now.c0; c < m.now.c1; c += group) {
            float* const scale = d[(c - m.now.c0) / group];
            for (int r = 0; r < R && m.first_group; r++) {
                floats_store(scale + r * kTileLines, floats_from_f16(scales(tile + (r < there ? r : there - 1), c / group)));
            }
            unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA { tiles.zero<i.value>(); });
            add_products<L, R>(tiles, source, tokens, m, c, c + group);
            unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
                tiles.store<i.value>(sums + i.value / R * m.half * kRow + i.value % R * kTileLines, kRow * sizeof *sums);
            });
            Floats by[R];
            unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA { by[r] = floats_load(scale + r.value * kTileLines); });
            for (int t = 0; t < m.count; t++) {
                unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
                    float* a = mine + t * kRow + r.value * kTileLines;
                    floats_store(a, floats_fma(by[r], floats_from_ints(ints_load(sums + t * kRow + r.value * kTileLines)), floats_load(a)));
                });
            }
        }
        if (m.ends) each([&](float* at, const float* a) ONEBIT_INLINE_LAMBDA { floats_store(at, floats_load(a)); });
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
