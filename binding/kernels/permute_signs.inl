// Sign matrices times int8 activations of several tokens with vpermi2w, which looks up 32 words of 16 bits in a table of
// 64. Included inside the anonymous namespace of the AVX-512 sets, after lookup_signs.inl.
//
// For every 6 activations a table holds, for each of the 64 patterns of 6 sign bits, their signed sum: at most 762 either
// way, so that the sums of 258 columns add up in 16 bits before anything has to widen. One lookup and one addition do
// 32 rows x 6 columns; a byte shuffle (lookup_signs.inl) needs two of each for 64 rows x 4 columns, and half as many
// registers' worth of work again to put its parts together.
//
// A word of two neighbouring bytes of the block is 16 columns of a row: two fields of 6 bits, and 4 bits over. What 4
// words leave over makes two more fields and a shorter one, so 64 columns are 11 fields. vpermi2w looks at the lowest 6
// bits of an index only, so a field is a shift.
//
//     table: | columns 0..5 | 6..11 | 16..21 | 22..27 | 32..37 | 38..43 | 48..53 | 54..59 |
//            | 12..15, 28, 29 | 44..47, 30, 31 | 60..63 | next 64 columns ...              64 words each
//
// Cost of 64 columns, 32 rows and one token: 11 lookups and 11 additions, a third of 7 instructions to widen. Splitting
// 64 columns of 32 rows into indices takes 15 instructions and 11 stores, shared by the tokens of a call.
//
// Measured on one core of a Zen 4 (3.69 GHz, one vpermi2w a cycle: 687 Gw/s if it did nothing else), signs in L2, with
// 4 / 8 / 16 / 32 tokens: 576 x 576 388 / 458 / 503 / 531 Gw/s, 2048 x 2048 376 / 439 / 462 / 475, where byte shuffles of
// 256 bits reach 262 to 310 and vpermw with tables of 5 columns 314 / 373 / 407 / 423 and 320 / 382 / 426 / 445. Four
// blocks or three tokens at a time are slower (430 and 420), a tile of 256 columns is up to 5 % slower in small matrices.

constexpr int kFields = 11;           // of 64 columns
constexpr int kFieldBytes = 128;      // of a field's table
constexpr int kPermuteTile = 192;     // columns that add up in 16 bits (192 * 127 < 2^15) and whose indices fill 12 KiB
constexpr int kPermuteBlocks = 3;     // blocks at a time, two vectors of 32 rows each
constexpr int kPermuteTokens = 2;     // tokens at a time: 12 sums, 6 indices, 2 halves of a table, and what is looked up
constexpr int kAskingTokens = 8;      // whose lookups fetch the signs that follow
constexpr int kManyTokens = 4;        // fewer are faster with byte shuffles: 1.1B, 2 and 3 sessions 10 to 20 %
constexpr int kPermuteCols = 384;     // a multiple of the tile, and of the groups of grouped signs
constexpr size_t kStretchBytes = 288 << 10;  // of tables that meet all rows before the next ones

size_t permute_bytes(int cols) { return static_cast<size_t>(round_up(cols, 64) / 64) * kFields * kFieldBytes; }

// ---- tables ------------------------------------------------------------------------------------------------

// 12 activations in the first bytes of every quarter of a vector make the sums of columns 0..2, 3..5, 6..8 and 9..11, a
// quarter each, for the 8 patterns of three signs. vpmaddubsw adds pairs: of the first two columns, and of the third and
// a constant. It wants one operand unsigned, so the activations are 128 too large, and the constant, 128 as well, has the
// factor that takes that off again.
struct Triples {
    alignas(64) int8_t pick[2][64], factor[2][64];
};
constexpr Triples make_triples() {
    Triples triples{};
    for (int i = 0; i < 32; i++) {
        int sum = 0;
        for (int k = 0; k < 3; k++) {
            const int sign = (i % 8 >> k & 1) != 0 ? -1 : 1;
            triples.pick[k / 2][i * 2 + k % 2] = static_cast<int8_t>(i / 8 * 3 + k);
            triples.factor[k / 2][i * 2 + k % 2] = static_cast<int8_t>(sign);
            sum += sign;
        }
        triples.pick[1][i * 2 + 1] = -1;  // zero, and then 128
        triples.factor[1][i * 2 + 1] = static_cast<int8_t>(-sum);
    }
    return triples;
}
constexpr Triples kTriples = make_triples();

// Entry e of a field is the sum e % 8 of its lower three columns and e / 8 of its upper ones: where the latter lie among
// the sums of two fields, for both fields and both halves of a table.
struct UpperSums {
    alignas(64) int16_t word[2][2][32];
};
constexpr UpperSums make_upper_sums() {
    UpperSums upper{};
    for (int field = 0; field < 2; field++) {
        for (int e = 0; e < 64; e++) upper.word[field][e / 32][e % 32] = static_cast<int16_t>(16 * field + 8 + e / 8);
    }
    return upper;
}
constexpr UpperSums kUpperSums = make_upper_sums();

// The tables of columns 0..5 and 6..11 of `a`, or of the first six only.
template <int Count>
inline void field_tables(uint8_t* table, __m128i a) {
    const __m512i all = _mm512_broadcast_i32x4(a), offset = _mm512_set1_epi8(-128);
    __m512i pairs[2];
    unrolled<2>([&](auto k) ONEBIT_INLINE_LAMBDA {
        const __m512i picked = _mm512_shuffle_epi8(all, _mm512_load_si512(kTriples.pick[k]));
        pairs[k] = _mm512_maddubs_epi16(_mm512_xor_si512(picked, offset), _mm512_load_si512(kTriples.factor[k]));
    });
    const __m512i sums = _mm512_add_epi16(pairs[0], pairs[1]);
    const __m512i lower[2] = {_mm512_shuffle_i32x4(sums, sums, 0x00), _mm512_shuffle_i32x4(sums, sums, 0xaa)};
    unrolled<2 * Count>([&](auto i) ONEBIT_INLINE_LAMBDA {
        const __m512i upper = _mm512_permutexvar_epi16(_mm512_load_si512(kUpperSums.word[i / 2][i % 2]), sums);
        _mm512_storeu_si512(table + i * 64, _mm512_add_epi16(lower[i / 2], upper));
    });
}

void permute_build(uint8_t* table, const int8_t* q, int cols) {
    const __m128i over0 = _mm_setr_epi8(12, 13, 14, 15, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m128i over1 = _mm_setr_epi8(-1, -1, -1, -1, 12, 13, -1, -1, -1, -1, 14, 15, -1, -1, -1, -1);
    const __m128i over2 = _mm_setr_epi8(-1, -1, -1, -1, -1, -1, 12, 13, 14, 15, -1, -1, -1, -1, -1, -1);
    const int padded_cols = static_cast<int>(round_up(cols, 64));
    for (int c = 0; c < padded_cols; c += 64, table += kFields * kFieldBytes) {
        __m128i a[4];
        unrolled<4>([&](auto w) ONEBIT_INLINE_LAMBDA {
            a[w] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + c + 16 * w));
            field_tables<2>(table + 2 * w * kFieldBytes, a[w]);
        });
        const __m128i over = _mm_or_si128(_mm_shuffle_epi8(a[0], over0), _mm_shuffle_epi8(a[1], over1));
        field_tables<2>(table + 8 * kFieldBytes, _mm_or_si128(over, _mm_shuffle_epi8(a[2], over2)));
        field_tables<1>(table + 10 * kFieldBytes, _mm_shuffle_epi8(a[3], over0));
    }
}

// ---- indices -----------------------------------------------------------------------------------------------

// What 4 words of 16 columns say, as 11 vectors of indices, `step` vectors apart.
inline void store_fields(__m512i* indices, int step, const __m512i (&words)[4]) {
    for (int w = 0; w < 4; w++) {
        _mm512_store_si512(indices + (2 * w) * step, words[w]);
        _mm512_store_si512(indices + (2 * w + 1) * step, _mm512_srli_epi16(words[w], 6));
    }
    constexpr int kOrAnd = 0xf8;  // a | (b & c)
    const __m512i two_bits = _mm512_set1_epi16(0x30);
    const auto over = [](__m512i word) { return _mm512_srli_epi16(word, 12); };
    const __m512i low = _mm512_srli_epi16(words[1], 8), high = _mm512_srli_epi16(words[1], 10);
    _mm512_store_si512(indices + 8 * step, _mm512_ternarylogic_epi64(over(words[0]), low, two_bits, kOrAnd));
    _mm512_store_si512(indices + 9 * step, _mm512_ternarylogic_epi64(over(words[2]), high, two_bits, kOrAnd));
    _mm512_store_si512(indices + 10 * step, over(words[3]));
}

// Columns [c0, c1) of one block: vectors 2 k and 2 k + 1 of `step`, from the words in the lower and upper halves of
// every 128 bits.
inline void split_block(__m512i* indices, int step, const uint8_t* block, int c0, int c1) {
    for (int c = c0; c < c1; c += 64, indices += kFields * step) {
        __m512i low[4], high[4];
        for (int w = 0; w < 4; w++) {
            const uint8_t* bytes = block + c * 8 + w * 128;
            const __m512i even = _mm512_loadu_si512(bytes), odd = _mm512_loadu_si512(bytes + 64);
            low[w] = _mm512_unpacklo_epi8(even, odd);
            high[w] = _mm512_unpackhi_epi8(even, odd);
        }
        store_fields(indices, step, low);
        store_fields(indices + 1, step, high);
    }
}

// ---- sums --------------------------------------------------------------------------------------------------

// The signs that will be split next, one piece of each block. A tile of columns is a small piece of every block, which no
// hardware prefetcher follows from block to block. The processor drops prefetches that find no room, so they are spread over
// the lookups of the first tokens, a line of each block beside every field, and asked for more than once. (8 sessions, against
// all of them at once while splitting, where a fifth of the time was spent waiting for signs: 1.1B shape 19.1 -> 17.9 ms,
// 7B shape 33.4 -> 30.5 ms for 8 of its 32 layers.)
struct NextTile {
    const uint8_t* bits;  // null for other tokens
    size_t stride;
};

// The sums of R vectors of rows for T tokens over n fields.
template <int R, int T>
ONEBIT_INLINE void look_up(__m512i (&sums)[T][R], const __m512i* indices, const uint8_t* tables, size_t table_stride, int n,
                           NextTile next) {
    unrolled<T * R>([&](auto i) ONEBIT_INLINE_LAMBDA { sums[i / R][i % R] = _mm512_setzero_si512(); });
    for (int i = 0; i < n; i++, indices += R, tables += kFieldBytes) {
        if (next.bits) {
            unrolled<R / 2>([&](auto b) ONEBIT_INLINE_LAMBDA { prefetch_far(next.bits + b * next.stride + i * 64); });
        }
        __m512i index[R];
        unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
            index[r] = _mm512_load_si512(indices + r);
            add_now(index[r]);  // loaded once
        });
        unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
            const uint8_t* table = tables + static_cast<size_t>(t) * table_stride;
            const __m512i low = _mm512_loadu_si512(table), high = _mm512_loadu_si512(table + 64);
            unrolled<R / 2>([&](auto pair) ONEBIT_INLINE_LAMBDA {
                __m512i(&sum)[R] = sums[t];
                constexpr int even = 2 * pair.value, odd = even + 1;
                __m512i found = _mm512_permutex2var_epi16(low, index[even], high);
                __m512i found_odd = _mm512_permutex2var_epi16(low, index[odd], high);
                pair_now(found, found_odd);
                sum[even] = _mm512_add_epi16(sum[even], found);
                sum[odd] = _mm512_add_epi16(sum[odd], found_odd);
                pair_now(sum[even], sum[odd]);
            });
        });
    }
}

// Calls f(row, sums of 16 rows) for the four parts of one block (byte_of_row): words of the lower halves at even places,
// of the upper halves, and the same at odd places.
template <class F>
inline void by_rows(__m512i low, __m512i high, F f) {
    const __m512i even = _mm512_set1_epi32(1);  // 1 x the lower word + 0 x the upper one
    f(0, _mm512_madd_epi16(low, even));
    f(16, _mm512_madd_epi16(high, even));
    f(32, _mm512_srai_epi32(low, 16));
    f(48, _mm512_srai_epi32(high, 16));
}

// One tile of columns for T tokens and B blocks: what is done with the sums is f(out of a block and token, block, low,
// high).
template <int B, int T, class Out, class F>
ONEBIT_INLINE void permute_tokens(Out* out, size_t out_stride, const __m512i* indices, const uint8_t* tables, size_t table_stride,
                           int n, NextTile next, F f) {
    __m512i sums[T][2 * B];
    look_up<2 * B, T>(sums, indices, tables, table_stride, n, next);
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        unrolled<B>([&](auto b) ONEBIT_INLINE_LAMBDA {
            f(out + static_cast<size_t>(t) * out_stride + b * 64, b, sums[t][2 * b], sums[t][2 * b + 1]);
        });
    });
}

// Columns whose tables stay in the second-level cache while all rows pass by: a multiple of the tile.
inline int permute_stretch(int tile, int n_tokens) {
    const int fitting = static_cast<int>(kStretchBytes / (kFields * kFieldBytes)) * 64 / n_tokens / tile * tile;
    return fitting < tile ? tile : fitting;
}

// For every group of blocks and tile of columns: begin(first block, blocks, first column), and then for each token and block
// finish(out, block of the group, first column, low, high), which adds the sums of 64 rows to what is there. The tiles of
// some rows follow each other, so that their sums stay near.
template <int Tile, class Out, class Begin, class F>
inline void permute_signs(Out* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* tables, size_t table_stride,
                          int n_tokens, Begin begin, F finish) {
    alignas(64) __m512i indices[Tile / 64 * kFields * kPermuteBlocks * 2];
    const auto rows = [&](int s0, int s1, int b, auto group) {
        constexpr int B = decltype(group)::value;
        const uint8_t* bits = blocks.bits + static_cast<size_t>(b) * blocks.stride;
        for (int c0 = s0; c0 < s1; c0 += Tile) {
            const int c1 = c0 + Tile < s1 ? c0 + Tile : s1;
            for (size_t k = 0; k < B; k++) split_block(indices + 2 * k, 2 * B, bits + k * blocks.stride, c0, c1);
            const uint8_t* after = bits + (c1 < s1 ? c1 : s0) * 8 + (c1 < s1 ? 0 : B * blocks.stride);
            begin(b, B, c0);
            const uint8_t* tile_tables = tables + static_cast<size_t>(c0 / 64) * kFields * kFieldBytes;
            by_groups<kPermuteTokens>(n_tokens, [&](int t, auto tokens) {
                const auto token = static_cast<size_t>(t);
                const NextTile next{t < kAskingTokens ? after : nullptr, blocks.stride};
                permute_tokens<B, decltype(tokens)::value>(
                    out + token * out_stride + b * 64, out_stride, indices, tile_tables + token * table_stride, table_stride,
                    (c1 - c0) / 64 * kFields, next,
                    [&](Out* to, int k, __m512i low, __m512i high) { finish(to, k, c0, low, high); });
            });
        }
    };
    const int end = static_cast<int>(round_up(cols, 64)), stretch = permute_stretch(Tile, n_tokens);
    for (int s0 = 0; s0 < end; s0 += stretch) {
        const int s1 = s0 + stretch < end ? s0 + stretch : end;
        by_groups<kPermuteBlocks>(blocks.count, [&](int b, auto group) { rows(s0, s1, b, group); });
    }
}

void sign_permute(int32_t* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* tables, size_t table_stride,
                  int n_tokens, bool add) {
    const auto finish = [=](int32_t* to, int, int c0, __m512i low, __m512i high) {
        by_rows(low, high, [&](int row, __m512i sums) {
            ints_store(to + row, add || c0 > 0 ? ints_add(sums, ints_load(to + row)) : sums);
        });
    };
    permute_signs<kPermuteTile>(out, out_stride, blocks, cols, tables, table_stride, n_tokens, [](int, int, int) {}, finish);
}

void grouped_permute(float* out, size_t out_stride, SignBlocks blocks, const uint16_t* scales, int cols, const uint8_t* tables,
                     size_t table_stride, int n_tokens, bool add) {
    alignas(64) float d[kPermuteBlocks][64];  // the scales at hand, converted once for all tokens
    const auto begin = [&](int b, int count, int c0) {
        for (int k = 0; k < count; k++) {
            const uint16_t* halves = scales + static_cast<size_t>(b + k) * groups_of(blocks) * 64 + c0 / 2;
            for (int r = 0; r < 64; r += 16) floats_store(d[k] + r, floats_from_f16(halves + r));
        }
    };
    const auto finish = [&](float* to, int k, int c0, __m512i low, __m512i high) {
        by_rows(low, high, [&](int row, __m512i sums) {
            const Floats before = add || c0 > 0 ? floats_load(to + row) : floats_zero();
            floats_store(to + row, floats_fma(floats_load(d[k] + row), floats_from_ints(sums), before));
        });
    };
    permute_signs<128>(out, out_stride, blocks, cols, tables, table_stride, n_tokens, begin, finish);
}
