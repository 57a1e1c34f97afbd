// Sign matrices times 4-bit activations: XNOR and popcount on bit planes, written once over Bytes. Included inside the
// set's anonymous namespace, after lookup_signs.inl, whose blocks of packed signs it reads.
//
// An activation is a sign bit s and a magnitude of three bits m2 m1 m0, with w the sign bit of the weight:
//
//     sum of +-a = A - 2 u,   A = the sum of |a|,   u = the sum over p = 0, 1, 2 of 2^p popcount((w ^ s) & m_p)
//
// A byte shuffle counts bits with a table of 16 entries, one for each pattern of four bits of w. The table need not be
// the same everywhere: with one for every four columns, the ^ s, the & m_p and the 2^p go into its entries, and one
// shuffle counts all planes of four columns of a whole vector of rows:
//
//     planes: | u of the 16 patterns of columns 0..3 (16 bytes, 0..28) | columns 4..7 | ... | A of each 128 columns |
//
// Eight counts (<= 224) add up in 8 bits before anything widens. Everything is exact.
//
// Cost of 64 columns in one vector and one token: 16 lookups, 16 additions, 6 instructions to widen: 38, where
// lookup_signs.inl takes 70, and half the bytes of tables; loads and the 24 to split nibbles are shared by
// kCountTokens tokens and kCountBlocks blocks. Measured on one core of a busy 2-core Zen 4, weights in L2, Gw/s:
//
//                          1 token  4 tokens  64 tokens  groups, 1 token  groups, 4  from DRAM, 1 token  DRAM, 4
//     avx2    int8 lookups     272       232        251              223        218           190 to 230      165
//     avx2    this             390       502        490              311        397           165 to 185      454
//     avx512  int8 lookups     217       192        207              188        180           195 to 205      147
//     avx512  this             375       524        523              281        356           155 to 170      476
//
// From DRAM one token on one thread waits for memory either way (8 weights a byte: 21 to 28 GB/s), and the slower loop
// gets a little more out of the prefetches; why, we have not found. Preparing 4096 columns, rounding and tables, takes
// 2.5 us here and 2.1 us there.
//
// Instructions that count bits lose to the shuffle, because they count one plane at a time (ternary logic, count, add:
// 9 for 512 weights and more registers): VPOPCNTQ 203 with 1 token and 290 with 4 or more, VPOPCNTB over this layout
// 265 even without widening (bench/native/popcount_bench.cpp). NEON's CNT would take 10 instructions for 128 weights,
// this takes 5 with the splitting. The scalar set counts words: see scalar.cpp.

// Columns of one pass of several tokens, so that their planes and the signs stay in the first two levels of the cache.
constexpr int kCountCols = 2048;

inline size_t counts_bytes(int cols) { return static_cast<size_t>(round_up(cols, 64)) * 4; }

size_t planes_bytes(int cols) {
    return static_cast<size_t>(round_up(static_cast<int64_t>(counts_bytes(cols)) + round_up(cols, 128) / 32, 64));
}

void planes_build(uint8_t* planes, const int8_t* q, int cols) {
    const int padded_cols = static_cast<int>(round_up(cols, 64));
    for (int c = 0; c < padded_cols; c += 32) counts_of_32(planes + c * 4, q + c);
    store_absolute(planes + counts_bytes(cols), q, padded_cols);
}

// Sums of 16-bit words (even + 256 * odd counts) and of the odd counts alone, as in lookup_signs.inl, for T tokens and
// the rows of B blocks.
template <int T, int B>
struct Counts {
    Bytes all[T][B * kVectors], odd[T][B * kVectors];
};

template <int T, int B>
inline void clear(Counts<T, B>& sums) {
    for (int t = 0; t < T; t++) {
        for (int v = 0; v < B * kVectors; v++) sums.all[t][v] = sums.odd[t][v] = bytes_zero();
    }
}

// Planes of one token after another, and blocks of signs one after another.
struct CountSource {
    const uint8_t *signs, *planes;
    size_t block_bytes, planes_stride;
};

template <int T, int B>
inline void count_four_columns(Bytes (&counts)[T][B * kVectors], const Nibbles (&signs)[B], bool high,
                               const CountSource& from, size_t at) {
    for (int t = 0; t < T; t++) {
        const Bytes entries = table_load(from.planes + static_cast<size_t>(t) * from.planes_stride + at);
        for (int b = 0; b < B; b++) {
            for (int v = 0; v < kVectors; v++) {
                Bytes& count = counts[t][b * kVectors + v];
                count = bytes_add(count, lookup(entries, high ? signs[b].high[v] : signs[b].low[v]));
                add_now(count);
            }
        }
    }
}

template <int T, int B>
inline void count_byte(Bytes (&counts)[T][B * kVectors], const CountSource& from, size_t j) {
    Nibbles signs[B];
    for (int b = 0; b < B; b++)
        signs[b] = PackedSigns{from.signs + static_cast<size_t>(b) * from.block_bytes}.nibbles(j);
    count_four_columns<T, B>(counts, signs, false, from, j * 32);
    count_four_columns<T, B>(counts, signs, true, from, j * 32 + 16);
}

// 32 columns: bytes j .. j + 3 of the blocks. Written out because compilers do not unroll the loop.
template <int T, int B>
inline void count_four_bytes(Counts<T, B>& sums, const CountSource& from, size_t j) {
    Bytes counts[T][B * kVectors];
    for (int t = 0; t < T; t++) {
        for (int v = 0; v < B * kVectors; v++) counts[t][v] = bytes_zero();
    }
    count_byte<T, B>(counts, from, j);
    count_byte<T, B>(counts, from, j + 1);
    count_byte<T, B>(counts, from, j + 2);
    count_byte<T, B>(counts, from, j + 3);
    for (int t = 0; t < T; t++) {
        for (int v = 0; v < B * kVectors; v++) {
            sums.all[t][v] = words_add(sums.all[t][v], counts[t][v]);
            sums.odd[t][v] = words_add_odd(sums.odd[t][v], counts[t][v]);
        }
    }
}

// The counts of one token and one block in the form that the stores of lookup_signs.inl take.
template <int T, int B>
inline void take_block(Sums (&out)[kVectors], const Counts<T, B>& sums, int t, int b) {
    for (int v = 0; v < kVectors; v++)
        out[v] = {sums.all[t][b * kVectors + v], sums.odd[t][b * kVectors + v], bytes_zero(), bytes_zero()};
}

// Columns [c0, c1); at most kMaxCarryCols.
template <int T, int B>
inline void count_columns(int32_t* out, size_t out_stride, const CountSource& from, int c0, int c1, int cols, bool add) {
    Counts<T, B> sums;
    clear(sums);
    for (int c = c0; c < c1; c += 32) count_four_bytes(sums, from, static_cast<size_t>(c / 8));
    for (int t = 0; t < T; t++) {
        const size_t token = static_cast<size_t>(t);
        const int32_t absolute = absolute_sum(from.planes + token * from.planes_stride + counts_bytes(cols), c0, c1);
        for (int b = 0; b < B; b++) {
            Sums block[kVectors];
            take_block(block, sums, t, b);
            store_sums(out + token * out_stride + b * 64, block, absolute, add || c0 > 0);
        }
    }
}

// B blocks for n_tokens, columns in steps: one group of tokens after another meets the same signs.
template <int B>
inline void count_blocks(int32_t* out, size_t out_stride, CountSource from, int cols, int n_tokens, bool add) {
    const int end = static_cast<int>(round_up(cols, 64)), step = n_tokens == 1 ? kMaxCarryCols : kCountCols;
    const uint8_t* planes = from.planes;
    for (int c0 = 0; c0 < end; c0 += step) {
        const int c1 = c0 + step < end ? c0 + step : end;
        size_t t = 0;
        for (; t + kCountTokens <= static_cast<size_t>(n_tokens); t += kCountTokens) {
            from.planes = planes + t * from.planes_stride;
            count_columns<kCountTokens, B>(out + t * out_stride, out_stride, from, c0, c1, cols, add);
        }
        for (; t < static_cast<size_t>(n_tokens); t++) {
            from.planes = planes + t * from.planes_stride;
            count_columns<1, B>(out + t * out_stride, out_stride, from, c0, c1, cols, add);
        }
    }
}

void sign_i4(int32_t* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* planes, size_t planes_stride,
             int n_tokens, bool add) {
    CountSource from{blocks.bits, planes, blocks.stride, planes_stride};
    for (int t = 0; t < n_tokens; t += kMaxTokens) {
        const int count = n_tokens - t < kMaxTokens ? n_tokens - t : kMaxTokens;
        int32_t* to = out + static_cast<size_t>(t) * out_stride;
        from.planes = planes + static_cast<size_t>(t) * planes_stride;
        int b = 0;
        // One token alone reads the blocks in their order: two streams from DRAM are slower than one.
        for (; count > 1 && b + kCountBlocks <= blocks.count; b += kCountBlocks) {
            from.signs = blocks.bits + static_cast<size_t>(b) * from.block_bytes;
            count_blocks<kCountBlocks>(to + b * 64, out_stride, from, cols, count, add);
        }
        for (; b < blocks.count; b++) {
            from.signs = blocks.bits + static_cast<size_t>(b) * from.block_bytes;
            count_blocks<1>(to + b * 64, out_stride, from, cols, count, add);
        }
    }
}

// ---- one scale per row and 128 columns ---------------------------------------------------------------------

// Group g of one block for T tokens; d: the 64 rows' scales.
template <int T>
inline void count_group(float* out, size_t out_stride, const CountSource& from, const float* d, int g, int cols, bool add) {
    Counts<T, 1> sums;
    clear(sums);
    for (int i = 0; i < 4; i++) count_four_bytes(sums, from, static_cast<size_t>(g * 16 + i * 4));
    for (int t = 0; t < T; t++) {
        const size_t token = static_cast<size_t>(t);
        Sums block[kVectors];
        take_block(block, sums, t, 0);
        const uint8_t* absolute = from.planes + token * from.planes_stride + counts_bytes(cols);
        store_group(out + token * out_stride, block, absolute_sum(absolute, g * 128, g * 128 + 128), d, add || g > 0);
    }
}

void grouped_i4(float* out, size_t out_stride, SignBlocks blocks, const uint16_t* scales, int cols, const uint8_t* planes,
                size_t planes_stride, int n_tokens, bool add) {
    CountSource from{blocks.bits, planes, blocks.stride, planes_stride};
    for (int b = 0; b < blocks.count; b++, out += 64, scales += groups_of(blocks) * 64) {
        from.signs = blocks.bits + static_cast<size_t>(b) * from.block_bytes;
        for (int g = 0; g < cols / 128; g++) {
            alignas(64) float d[64];
            for (int r = 0; r < 64; r += kBytes / 4) floats_store(d + r, floats_from_f16(scales + g * 64 + r));
            size_t t = 0;
            for (; t + kCountTokens <= static_cast<size_t>(n_tokens); t += kCountTokens) {
                from.planes = planes + t * planes_stride;
                count_group<kCountTokens>(out + t * out_stride, out_stride, from, d, g, cols, add);
            }
            for (; t < static_cast<size_t>(n_tokens); t++) {
                from.planes = planes + t * planes_stride;
                count_group<1>(out + t * out_stride, out_stride, from, d, g, cols, add);
            }
        }
    }
}
