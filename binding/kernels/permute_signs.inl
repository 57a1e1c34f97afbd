// Sign matrices times int8 activations of several tokens with vpermw, which looks up 32 words of 16 bits in a table of
// 32. Included inside the anonymous namespace of the AVX-512 sets, after lookup_signs.inl.
//
// For every 5 activations a table holds, for each of the 32 patterns of 5 sign bits, their signed sum: at most 635 either
// way, so that the 52 sums of 256 columns add up in 16 bits before anything has to widen. One lookup and one addition do
// 32 rows x 5 columns; a byte shuffle (lookup_signs.inl) needs two of each for 64 rows x 4 columns, and half as many
// registers' worth of work again to put its parts together.
//
// A word of two neighbouring bytes of the block is 16 columns of a row: fields of 5, 5 and 5 bits, and one bit over. The
// bits that 4 words leave over are a fourth of a field, so 64 columns are 13 fields. vpermw looks at the lowest 5 bits of
// an index only, so a field is a shift.
//
//     table: | 12 tables: columns 16 w + 5 f .. + 4 (w = 0..3, f = 0..2) | 1: columns 15, 31, 47, 63 | next 64 columns ...
//
// Cost of 64 columns, 32 rows and one token: 13 lookups, 13 additions, a quarter of 9 instructions to widen. Splitting
// 64 columns of 32 rows into indices takes 19 instructions and 13 stores, shared by the tokens of a pass.
//
// Measured on one core of a Zen 4 (3.6 GHz, one vpermw a cycle: 576 Gw/s if it did nothing else), 1024 x 4096 signs in L2:
// 302 Gw/s with 4 tokens, 350 with 8, 394 with 16, 412 to 450 with 64, where byte shuffles of 256 bits reach 222 to 258.
// With one or two tokens the splitting does not pay.

constexpr int kFields = 13;           // of 64 columns
constexpr int kPermuteTile = 256;     // columns that add up in 16 bits: 256 * 127 < 2^15
constexpr int kPermuteVectors = 4;    // vectors of 32 rows: two blocks
constexpr int kPermuteTokens = 4;     // tokens at a time: 16 sums, 4 indices and a table fill the registers
constexpr int kManyTokens = 3;        // fewer are faster with byte shuffles
constexpr int kPermutePass = 64;      // tokens of one pass over the rows: 208 KiB of tables for a tile of columns

size_t permute_bytes(int cols) { return static_cast<size_t>(round_up(cols, 64)) * kFields; }

// ---- tables ------------------------------------------------------------------------------------------------

// The signs of two columns of a field in the 32 patterns: bytes +1 or -1; what is not in the field is 0.
struct FieldSigns {
    alignas(64) int8_t pair[3][64];
    alignas(64) int16_t excess[32];  // 128 times the sum of a pattern's signs
};
constexpr FieldSigns make_field_signs() {
    FieldSigns signs{};
    for (int e = 0; e < 32; e++) {
        int sum = 0;
        for (int k = 0; k < 5; k++) {
            const int sign = (e >> k & 1) != 0 ? -1 : 1;
            signs.pair[k / 2][e * 2 + k % 2] = static_cast<int8_t>(sign);
            sum += sign;
        }
        signs.excess[e] = static_cast<int16_t>(128 * sum);
    }
    return signs;
}
constexpr FieldSigns kFieldSigns = make_field_signs();

// a: 6 activations, each plus 128 because vpmaddubsw wants one operand unsigned; the sixth has no part in it.
inline __m512i field_table(const uint8_t* a) {
    __m512i sum = _mm512_load_si512(kFieldSigns.excess);
    sum = _mm512_sub_epi16(_mm512_setzero_si512(), sum);
    for (int k = 0; k < 3; k++) {
        int16_t pair;
        memcpy(&pair, a + 2 * k, 2);
        sum = _mm512_add_epi16(sum, _mm512_maddubs_epi16(_mm512_set1_epi16(pair), _mm512_load_si512(kFieldSigns.pair[k])));
    }
    return sum;
}

void permute_build(uint8_t* table, const int8_t* q, int cols) {
    const int padded_cols = static_cast<int>(round_up(cols, 64));
    for (int c = 0; c < padded_cols; c += 64) {
        alignas(64) uint8_t a[128];
        _mm512_store_si512(a, _mm512_xor_si512(_mm512_loadu_si512(q + c), _mm512_set1_epi8(-128)));
        const uint8_t over[6] = {a[15], a[31], a[47], a[63], 128, 128};
        for (int w = 0; w < 4; w++) {
            for (int f = 0; f < 3; f++, table += 64) _mm512_storeu_si512(table, field_table(a + 16 * w + 5 * f));
        }
        _mm512_storeu_si512(table, field_table(over));
        table += 64;
    }
}

// ---- indices -----------------------------------------------------------------------------------------------

// What 4 words of 16 columns say, as 13 vectors of indices, `step` vectors apart.
inline void store_fields(__m512i* indices, int step, __m512i w0, __m512i w1, __m512i w2, __m512i w3) {
    const __m512i words[4] = {w0, w1, w2, w3};
    for (int w = 0; w < 4; w++) {
        _mm512_store_si512(indices + (3 * w) * step, words[w]);
        _mm512_store_si512(indices + (3 * w + 1) * step, _mm512_srli_epi16(words[w], 5));
        _mm512_store_si512(indices + (3 * w + 2) * step, _mm512_srli_epi16(words[w], 10));
    }
    constexpr int kOrAnd = 0xf8;  // a | (b & c)
    __m512i over = _mm512_srli_epi16(w0, 15);
    over = _mm512_ternarylogic_epi64(over, _mm512_srli_epi16(w1, 14), _mm512_set1_epi16(2), kOrAnd);
    over = _mm512_ternarylogic_epi64(over, _mm512_srli_epi16(w2, 13), _mm512_set1_epi16(4), kOrAnd);
    over = _mm512_ternarylogic_epi64(over, _mm512_srli_epi16(w3, 12), _mm512_set1_epi16(8), kOrAnd);
    _mm512_store_si512(indices + 12 * step, over);
}

// Columns [c0, c1) of one block: vectors 2 k and 2 k + 1 of `step`, from the words in the lower and upper halves of
// every 128 bits. A tile of columns is a small piece of every block, which no hardware prefetcher follows from block to
// block, so the piece that will be split next is fetched, `ahead` bytes behind this one.
inline void split_block(__m512i* indices, int step, const uint8_t* block, size_t ahead, int c0, int c1) {
    for (int c = c0; c < c1; c += 64, indices += kFields * step) {
        __m512i low[4], high[4];
        for (int w = 0; w < 4; w++) {
            const uint8_t* bytes = block + c * 8 + w * 128;
            const __m512i even = _mm512_loadu_si512(bytes), odd = _mm512_loadu_si512(bytes + 64);
            prefetch_far(bytes + ahead);
            prefetch_far(bytes + ahead + 64);
            low[w] = _mm512_unpacklo_epi8(even, odd);
            high[w] = _mm512_unpackhi_epi8(even, odd);
        }
        store_fields(indices, step, low[0], low[1], low[2], low[3]);
        store_fields(indices + 1, step, high[0], high[1], high[2], high[3]);
    }
}

// ---- sums --------------------------------------------------------------------------------------------------

// The sums of R vectors of rows for T tokens over n fields. Two blocks have R = 4, a single one R = 2.
template <int R, int T>
inline void look_up(__m512i (&sums)[T][R], const __m512i* indices, const uint8_t* tables, size_t table_stride, int n) {
    for (int t = 0; t < T; t++) {
        for (int r = 0; r < R; r++) sums[t][r] = _mm512_setzero_si512();
    }
    for (int i = 0; i < n; i++, indices += R, tables += 64) {
        __m512i index[R];
        for (int r = 0; r < R; r++) index[r] = _mm512_load_si512(indices + r);
        for (int t = 0; t < T; t++) {
            const __m512i table = _mm512_loadu_si512(tables + static_cast<size_t>(t) * table_stride);
            for (int r = 0; r < R; r++) sums[t][r] = _mm512_add_epi16(sums[t][r], _mm512_permutexvar_epi16(index[r], table));
        }
    }
}

// Calls f(row, sums of the 16 rows of rows_load(row)) for the four parts of one block: words of the lower halves at even
// places, of the upper halves, and the same at odd places.
template <class F>
inline void by_rows(__m512i low, __m512i high, F f) {
    constexpr int kRun = kOrder / 4;
    f(0, _mm512_srai_epi32(_mm512_slli_epi32(low, 16), 16));
    f(kRun, _mm512_srai_epi32(_mm512_slli_epi32(high, 16), 16));
    f(2 * kRun, _mm512_srai_epi32(low, 16));
    f(3 * kRun, _mm512_srai_epi32(high, 16));
}

// One tile of columns for some tokens and R / 2 blocks: what is done with the sums is f(out of a block and token, block,
// low, high).
template <int R, int T, class Out, class F>
inline void permute_tokens(Out* out, size_t out_stride, const __m512i* indices, const uint8_t* tables, size_t table_stride,
                           int n, F f) {
    __m512i sums[T][R];
    look_up<R, T>(sums, indices, tables, table_stride, n);
    for (int t = 0; t < T; t++) {
        for (int b = 0; b < R / 2; b++) {
            f(out + static_cast<size_t>(t) * out_stride + b * 64, b, sums[t][2 * b], sums[t][2 * b + 1]);
        }
    }
}

// A tile of columns [c0, c1) for all rows and n_tokens tokens of one pass. finish(first block, out, block, low, high) adds
// the sums of 64 rows to what is there.
template <class Out, class F>
inline void permute_tile(Out* out, size_t out_stride, const uint8_t* blocks, size_t block_bytes, int n_blocks, int c0, int c1,
                         const uint8_t* tables, size_t table_stride, int n_tokens, F finish) {
    alignas(64) __m512i indices[kPermuteTile / 64 * kFields * kPermuteVectors];
    const int n = (c1 - c0) / 64 * kFields;
    tables += static_cast<size_t>(c0) * kFields;
    const auto of_blocks = [&](auto vectors, int b) {
        constexpr int R = decltype(vectors)::count;
        for (int k = 0; k < R / 2; k++) {
            split_block(indices + 2 * k, R, blocks + static_cast<size_t>(b + k) * block_bytes, 2 * block_bytes, c0,
                        c1);
        }
        by_queries<kPermuteTokens>(0, n_tokens, [&](int t, auto tokens) {
            permute_tokens<R, decltype(tokens)::count>(
                out + static_cast<size_t>(t) * out_stride + b * 64, out_stride, indices,
                tables + static_cast<size_t>(t) * table_stride, table_stride, n,
                [&](Out* to, int k, __m512i low, __m512i high) { finish(to, b + k, low, high); });
        });
    };
    int b = 0;
    for (; b + 2 <= n_blocks; b += 2) of_blocks(Queries<4>{}, b);
    if (b < n_blocks) of_blocks(Queries<2>{}, b);
}

// Calls f(first token, tokens, first column, end) for every pass and tile.
template <class F>
inline void permute_passes(int cols, int tile, int n_tokens, F f) {
    const int end = static_cast<int>(round_up(cols, 64));
    for (int t = 0; t < n_tokens; t += kPermutePass) {
        const int count = n_tokens - t < kPermutePass ? n_tokens - t : kPermutePass;
        for (int c = 0; c < end; c += tile) f(static_cast<size_t>(t), count, c, c + tile < end ? c + tile : end);
    }
}

void sign_permute(int32_t* out, size_t out_stride, const uint8_t* blocks, int n_blocks, int cols, const uint8_t* tables,
                  size_t table_stride, int n_tokens) {
    permute_passes(cols, kPermuteTile, n_tokens, [&](size_t t, int count, int c0, int c1) {
        const auto add = [&](int32_t* to, int, __m512i low, __m512i high) {
            by_rows(low, high, [&](int row, __m512i sums) {
                rows_store(to + row, c0 == 0 ? sums : _mm512_add_epi32(sums, rows_load(to + row)));
            });
        };
        permute_tile(out + t * out_stride, out_stride, blocks, sign_block_bytes(cols), n_blocks, c0, c1,
                     tables + t * table_stride, table_stride, count, add);
    });
}

void grouped_permute(float* out, size_t out_stride, const uint8_t* blocks, const uint16_t* scales, int n_blocks, int cols,
                     const uint8_t* tables, size_t table_stride, int n_tokens) {
    const size_t block_scales = static_cast<size_t>(cols / 128) * 64;
    permute_passes(cols, 128, n_tokens, [&](size_t t, int count, int c0, int c1) {
        // The scales of the two blocks at hand, converted once for all tokens.
        alignas(64) float scales_of[2][64];
        int block_of[2] = {-1, -1};
        const auto add = [&](float* to, int block, __m512i low, __m512i high) {
            float* d = scales_of[block % 2];
            if (block_of[block % 2] != block) {
                block_of[block % 2] = block;
                const uint16_t* halves = scales + static_cast<size_t>(block) * block_scales + c0 / 2;
                for (int r = 0; r < 64; r += 16) floats_store(d + r, floats_from_f16(halves + r));
            }
            by_rows(low, high, [&](int row, __m512i sums) {
                const Floats before = c0 == 0 ? floats_zero() : rows_load(to + row);
                rows_store(to + row, floats_fma(rows_load(d + row), floats_from_ints(sums), before));
            });
        };
        permute_tile(out + t * out_stride, out_stride, blocks, sign_block_bytes(cols), n_blocks, c0, c1,
                     tables + t * table_stride, table_stride, count, add);
    });
}
