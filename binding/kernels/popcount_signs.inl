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

constexpr int kCountCols = 1024;  // columns of one pass of several tokens: planes and signs stay in the first-level cache

inline size_t counts_bytes(int cols) { return static_cast<size_t>(round_up(cols, 64)) * 4; }

size_t planes_bytes(int cols) {
    return static_cast<size_t>(round_up(counts_bytes(cols) + static_cast<size_t>(round_up(cols, 128)) / 32, 64));
}

void planes_build(uint8_t* planes, const int8_t* q, int cols) {
    const int padded_cols = static_cast<int>(round_up(cols, 64));
    for (int c = 0; c < padded_cols; c += 32) counts_of_32(planes + c * 4, q + c);
    store_absolute(planes + counts_bytes(cols), q, padded_cols);
}

// Sums of 16-bit words (even + 256 * odd counts) and of the odd counts alone, as in lookup_signs.inl.
template <int T>
struct Counts {
    Bytes all[T][kVectors], odd[T][kVectors];
};

template <int T>
inline void clear(Counts<T>& sums) {
    for (int t = 0; t < T; t++) {
        for (int v = 0; v < kVectors; v++) sums.all[t][v] = sums.odd[t][v] = bytes_zero();
    }
}

template <int T>
inline void count_four_columns(Bytes (&counts)[T][kVectors], const Bytes (&index)[kVectors], const uint8_t* planes,
                               size_t stride) {
    for (int t = 0; t < T; t++) {
        const Bytes entries = table_load(planes + static_cast<size_t>(t) * stride);
        for (int v = 0; v < kVectors; v++) {
            counts[t][v] = bytes_add(counts[t][v], lookup(entries, index[v]));
            add_now(counts[t][v]);
        }
    }
}

template <int T>
inline void count_byte(Bytes (&counts)[T][kVectors], PackedSigns signs, size_t j, const uint8_t* planes,
                       size_t stride) {
    const Nibbles n = signs.nibbles(j);
    count_four_columns(counts, n.low, planes, stride);
    count_four_columns(counts, n.high, planes + 16, stride);
}

// 32 columns of a block for T tokens: bytes j .. j + 3. Written out because compilers do not unroll the loop.
template <int T>
inline void count_four_bytes(Counts<T>& sums, PackedSigns signs, size_t j, const uint8_t* planes, size_t stride) {
    Bytes counts[T][kVectors];
    for (int t = 0; t < T; t++) {
        for (int v = 0; v < kVectors; v++) counts[t][v] = bytes_zero();
    }
    count_byte(counts, signs, j, planes, stride);
    count_byte(counts, signs, j + 1, planes + 32, stride);
    count_byte(counts, signs, j + 2, planes + 64, stride);
    count_byte(counts, signs, j + 3, planes + 96, stride);
    for (int t = 0; t < T; t++) {
        for (int v = 0; v < kVectors; v++) {
            sums.all[t][v] = words_add(sums.all[t][v], counts[t][v]);
            sums.odd[t][v] = words_add_odd(sums.odd[t][v], counts[t][v]);
        }
    }
}

// One token's counts in the form that the stores of lookup_signs.inl take.
template <int T>
inline void take_token(Sums (&out)[kVectors], const Counts<T>& sums, int t) {
    for (int v = 0; v < kVectors; v++) out[v] = {sums.all[t][v], sums.odd[t][v], bytes_zero(), bytes_zero()};
}

// Columns [c0, c1) of one block for T tokens; at most kMaxCarryCols.
template <int T>
inline void count_columns(int32_t* out, size_t out_stride, const uint8_t* block, int c0, int c1, int cols,
                          const uint8_t* planes, size_t stride) {
    Counts<T> sums;
    clear(sums);
    for (int c = c0; c < c1; c += 32)
        count_four_bytes(sums, PackedSigns{block}, static_cast<size_t>(c / 8), planes + c * 4, stride);
    for (int t = 0; t < T; t++) {
        Sums token[kVectors];
        take_token(token, sums, t);
        const size_t at = static_cast<size_t>(t);
        store_sums(out + at * out_stride, token, absolute_sum(planes + at * stride + counts_bytes(cols), c0, c1),
                   c0 == 0);
    }
}

void sign_i4(int32_t* out, size_t out_stride, const uint8_t* blocks, int n_blocks, int cols, const uint8_t* planes,
             size_t planes_stride, int n_tokens) {
    const size_t block_bytes = sign_block_bytes(cols);
    const int end = static_cast<int>(round_up(cols, 64)), step = n_tokens == 1 ? kMaxCarryCols : kCountCols;
    for (int t0 = 0; t0 < n_tokens; t0 += kMaxTokens) {
        const int t1 = t0 + kMaxTokens < n_tokens ? t0 + kMaxTokens : n_tokens;
        for (int c0 = 0; c0 < end; c0 += step) {
            const int c1 = c0 + step < end ? c0 + step : end;
            for (int b = 0; b < n_blocks; b++) {
                const uint8_t* block = blocks + static_cast<size_t>(b) * block_bytes;
                int t = t0;
                for (; t + kCountTokens <= t1; t += kCountTokens) {
                    const size_t token = static_cast<size_t>(t);
                    count_columns<kCountTokens>(out + token * out_stride + b * 64, out_stride, block, c0, c1, cols,
                                                planes + token * planes_stride, planes_stride);
                }
                for (; t < t1; t++) {
                    const size_t token = static_cast<size_t>(t);
                    count_columns<1>(out + token * out_stride + b * 64, out_stride, block, c0, c1, cols,
                                     planes + token * planes_stride, planes_stride);
                }
            }
        }
    }
}

// ---- one scale per row and 128 columns ---------------------------------------------------------------------

// Group g of one block for T tokens; d: the 64 rows' scales.
template <int T>
inline void count_group(float* out, size_t out_stride, const uint8_t* block, const float* d, int g, int cols,
                        const uint8_t* planes, size_t stride) {
    Counts<T> sums;
    clear(sums);
    for (int i = 0; i < 4; i++) {
        count_four_bytes(sums, PackedSigns{block}, static_cast<size_t>(g * 16 + i * 4), planes + g * 512 + i * 128,
                         stride);
    }
    for (int t = 0; t < T; t++) {
        Sums token[kVectors];
        take_token(token, sums, t);
        int32_t absolute;
        memcpy(&absolute, planes + static_cast<size_t>(t) * stride + counts_bytes(cols) + g * 4, 4);
        store_group(out + static_cast<size_t>(t) * out_stride, token, absolute, d, g == 0);
    }
}

void grouped_i4(float* out, size_t out_stride, const uint8_t* blocks, const uint16_t* scales, int n_blocks, int cols,
                const uint8_t* planes, size_t planes_stride, int n_tokens) {
    const size_t block_bytes = sign_block_bytes(cols), groups = static_cast<size_t>(cols / 128);
    for (int b = 0; b < n_blocks; b++) {
        const uint8_t* block = blocks + static_cast<size_t>(b) * block_bytes;
        const uint16_t* block_scales = scales + static_cast<size_t>(b) * groups * 64;
        for (int g = 0; g < cols / 128; g++) {
            alignas(64) float d[64];
            for (int r = 0; r < 64; r += kBytes / 4) floats_store(d + r, floats_from_f16(block_scales + g * 64 + r));
            int t = 0;
            for (; t + kCountTokens <= n_tokens; t += kCountTokens) {
                const size_t token = static_cast<size_t>(t);
                count_group<kCountTokens>(out + token * out_stride + b * 64, out_stride, block, d, g, cols,
                                          planes + token * planes_stride, planes_stride);
            }
            for (; t < n_tokens; t++) {
                const size_t token = static_cast<size_t>(t);
                count_group<1>(out + token * out_stride + b * 64, out_stride, block, d, g, cols,
                               planes + token * planes_stride, planes_stride);
            }
        }
    }
}
