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
// are spread out into memory first, a little ahead of the products and beside them. Four sums stay in tiles over all columns:
// 32 tokens by 32 rows, or up to 16 tokens by 64 rows.
//
//     tokens 0..15  | 64 columns x 16 |     | 4 columns of 16 rows | x 16 lines       sums: 16 tokens x 16 rows, as `out` lies
//     tokens 16..31 |                 |  x  | the next 16 rows     |
//
// Measured on one core whose tiles multiply 3,100 G a second (bench/native/kernels_bench.cpp has the products one by one):
//   - Storing a tile takes the 16 cycles of a product, in which nothing is multiplied. So sums are not cut along the columns, and
//     every 32 tokens spread the weights out again: 64 tokens, 4,096 columns 1,310 -> 1,480 Gw/s.
//   - 32 stores beside the 4 products of a step are as many as there is room for: 3,100 -> 2,400.
//   - Lines that the first-level cache has lost take 8 cycles to store. 8 KB of weights at a time are 1,540 Gw/s, 16 KB 1,480;
//     a block of 32 KB that all tokens met was 700 to 1,000.

constexpr int kLineBytes = 64, kTileLines = 16, kTileBytes = kTileLines * kLineBytes, kStep = 64;  // kStep: columns of a tile
constexpr size_t kFetchAhead = 16 << 10;
constexpr int kSpreadBytes = 8 << 10;  // of weights at a time
constexpr int kTableCols = 1 << 14;  // whole rows: a column of a token is one byte
// Fewer tokens are multiplied by the other set.
constexpr int kLeastSigns = 3, kLeastTernary = 3, kLeastBytes = 16;

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

#if defined(_MSC_VER) && !defined(__clang__)
#define ONEBIT_APART __declspec(noinline)
#else
#define ONEBIT_APART __attribute__((noinline))
#endif

// Weights in the order in which they are multiplied, all columns of R tiles of rows and then those of the next, spread out some
// steps before. A step takes the place of the one that has just been multiplied, which is in the first-level cache.
template <int R, class Source>
class Weights {
public:
    Weights(const Source& source, int cols) : source_(source), n_tiles_(source.tiles()), end_((cols + kStep - 1) / kStep * kStep) {}

    void begin() {
        tile_ = c_ = now_ = 0;
        for (int i = 0; i < kSteps; i++) advance();
    }
    const int8_t* step() const { return spread_ + now_ * R * kTileBytes; }
    // The step that was multiplied is not needed any more.
    ONEBIT_APART void advance() {
        if (tile_ < n_tiles_) source_.template spread<R>(spread_ + now_ * R * kTileBytes, tile_, c_);
        now_ = (now_ + 1) % kSteps;
        c_ += kStep;
        if (c_ < end_) return;
        c_ = 0;
        tile_ += R;
    }
    int end() const { return end_; }

private:
    static constexpr int kSteps = kSpreadBytes / (R * kTileBytes);
    const Source& source_;
    const int n_tiles_, end_;
    int tile_ = 0, c_ = 0;  // what is spread out next
    int now_ = 0;           // what is multiplied next, of spread_
    alignas(64) int8_t spread_[kSpreadBytes] = {};
};

// What meets: tokens [first, first + count) of a call, of which the first left tile has `half`, and R tiles of rows from `tile` on.
struct Meeting {
    int first, count, half, tile;
    size_t token() const { return static_cast<size_t>(first); }
};

// one(Meeting) for all rows and tokens.
template <int L, int R, class Source, class F>
ONEBIT_INLINE void by_meetings(Tiles& tiles, Weights<R, Source>& weights, int n_tiles, int n_tokens, const F& one) {
    const int groups = (n_tokens + L * kTileLines - 1) / (L * kTileLines);
    for (int g = 0, first = 0; g < groups; g++) {
        const int count = (n_tokens - first + groups - g - 1) / (groups - g), half = (count + L - 1) / L;
        tiles.configure(half, L == 1 ? half : count - half);
        weights.begin();
        for (int tile = 0; tile < n_tiles; tile += R) one(Meeting{first, count, half, tile});
        first += count;
    }
    tiles.release();
}

// Adds products of columns [c, c1) to tiles 0 .. L * R - 1.
template <int L, int R, class Source>
ONEBIT_INLINE void add_products(Tiles& tiles, Weights<R, Source>& weights, const LeftTokens& tokens, const Meeting& m, int c, int c1) {
    const uint8_t* left = tokens.at + m.token() * tokens.stride + c;
    const size_t second = static_cast<size_t>(m.half) * tokens.stride;
    for (; c < c1; c += kStep, left += kStep) {
        const int8_t* right = weights.step();
        unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
            constexpr int kRight = 6 + r.value % 2;
            tiles.load<kRight>(right + r.value * kTileBytes, kLineBytes);
            unrolled<L>([&](auto l) ONEBIT_INLINE_LAMBDA {
                if constexpr (r.value == 0) tiles.load<4 + l.value>(left + l.value * second, tokens.stride);
                tiles.dot<l.value * R + r.value, 4 + l.value, kRight>();
            });
        });
        weights.advance();
    }
}

// ---- whole rows ------------------------------------------------------------------------------------------------

// out (+)= the sums of all columns. With `add`, all tiles of rows are whole.
template <int L, int R, class Source>
void sum_rows(int32_t* out, size_t out_stride, const Source& source, int cols, const LeftTokens& tokens, bool add) {
    Tiles tiles;
    Weights<R, Source> weights(source, cols);
    by_meetings<L, R>(tiles, weights, source.tiles(), tokens.count, [&](const Meeting& m) ONEBIT_INLINE_LAMBDA {
        int32_t* const to = out + m.token() * out_stride + m.tile * kTileLines;
        const auto at = [&](int i) { return to + static_cast<size_t>(i / R * m.half) * out_stride + i % R * kTileLines; };
        const auto rows = [&](int i) { return m.tile + i % R < source.tiles() ? source.rows(m.tile + i % R) : 0; };
        unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
            if (add && rows(i) > 0) {
                tiles.load<i.value>(at(i), out_stride * sizeof *out);
            } else {
                tiles.zero<i.value>();
            }
        });
        add_products<L, R>(tiles, weights, tokens, m, 0, weights.end());
        unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
            if (rows(i) == kTileLines) {
                tiles.store<i.value>(at(i), out_stride * sizeof *out);
            } else if (rows(i) > 0) {  // `out` has room for fewer rows than the tile
                alignas(64) int32_t sums[kTileLines * kTileLines];
                tiles.store<i.value>(sums, kLineBytes);
                const int lines = i < R ? m.half : m.count - m.half;
                for (int t = 0; t < lines; t++) {
                    memcpy(at(i) + static_cast<size_t>(t) * out_stride, sums + t * kTileLines, static_cast<size_t>(rows(i)) * sizeof *sums);
                }
            }
        });
    });
}

// ---- one scale per row and group of columns ------------------------------------------------------------------------

// scales(tile, group): of 16 rows.
template <int L, int R, class Source, class Scales>
void sum_groups(float* out, size_t out_stride, const Source& source, int cols, int group, const LeftTokens& tokens, bool add,
                const Scales& scales) {
    constexpr int kRow = R * kTileLines, kTokens = L * kTileLines;
    alignas(64) float acc[kTokens * kRow];
    alignas(64) int32_t sums[kTokens * kRow];
    Tiles tiles;
    Weights<R, Source> weights(source, cols);
    by_meetings<L, R>(tiles, weights, source.tiles(), tokens.count, [&](const Meeting& m) ONEBIT_INLINE_LAMBDA {
        const int there = source.tiles() - m.tile < R ? source.tiles() - m.tile : R;
        float* const to = out + m.token() * out_stride + m.tile * kTileLines;
        const auto each = [&](const auto& f) ONEBIT_INLINE_LAMBDA {
            for (int t = 0; t < m.count; t++) {
                for (int r = 0; r < there; r++) f(to + static_cast<size_t>(t) * out_stride + r * kTileLines, acc + t * kRow + r * kTileLines);
            }
        };
        each([&](const float* from, float* a) ONEBIT_INLINE_LAMBDA { floats_store(a, add ? floats_load(from) : floats_zero()); });
        for (int c = 0; c < cols; c += group) {
            unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA { tiles.zero<i.value>(); });
            add_products<L, R>(tiles, weights, tokens, m, c, c + group);
            unrolled<L * R>([&](auto i) ONEBIT_INLINE_LAMBDA {
                tiles.store<i.value>(sums + i.value / R * m.half * kRow + i.value % R * kTileLines, kRow * sizeof *sums);
            });
            Floats d[R];
            unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
                d[r] = floats_from_f16(scales(m.tile + (r.value < there ? r.value : there - 1), c / group));
            });
            for (int t = 0; t < m.count; t++) {
                unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
                    float* a = acc + t * kRow + r.value * kTileLines;
                    floats_store(a, floats_fma(d[r], floats_from_ints(ints_load(sums + t * kRow + r.value * kTileLines)), floats_load(a)));
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
