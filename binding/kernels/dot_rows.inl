// int8 matrices times int8 activations, written once over the set's dot product of bytes (dot_add). Four rows times
// kDotTokens tokens at a time. Included inside the set's anonymous namespace, after its *_vectors.inl.
//
// Later rows are fetched meanwhile. How far ahead matters: rows of 576 (a small model's head, mostly from the third-level
// cache) give 14 Gw/s with one token and 4 rows ahead, 50 with 16 KiB ahead (avx2, one Zen 4 core at 3.6 GHz); rows of
// 4096 from DRAM 24 GB/s either way.
//
// Where the processor multiplies unsigned by signed bytes only (kDotOffset = 128), the weights are read as w + 128
// and 128 * (the sum of the activations), which depends on the token alone, is subtracted at the end. Exact modulo
// 2^32.

constexpr int64_t kDotAhead = 16384;  // bytes, rounded up to whole blocks of rows

template <int T>
inline void dot_block(int32_t* out, size_t out_stride, const int8_t* const (&w)[kRows], int rows, int cols,
                      size_t ahead, const int8_t* q, size_t q_stride) {
    Ints sums[T][kRows], offset[T];
    for (int t = 0; t < T; t++) {
        offset[t] = ints_zero();
        for (int r = 0; r < kRows; r++) sums[t][r] = ints_zero();
    }
    for (int c = 0; c < cols; c += kBytes) {
        Bytes a[T];
        for (int t = 0; t < T; t++)
            a[t] = bytes_load(reinterpret_cast<const uint8_t*>(q) + static_cast<size_t>(t) * q_stride + c);
        if constexpr (kDotOffset != 0) {
            for (int t = 0; t < T; t++) offset[t] = dot_add(offset[t], dot_weights(bytes_zero()), a[t]);
        }
        for (int r = 0; r < kRows; r++) {
            prefetch_far(reinterpret_cast<const uint8_t*>(w[r]) + c + ahead);
            const DotWeights weights = dot_weights(bytes_load(reinterpret_cast<const uint8_t*>(w[r]) + c));
            for (int t = 0; t < T; t++) sums[t][r] = dot_add(sums[t][r], weights, a[t]);
        }
    }
    for (int t = 0; t < T; t++) {
        for (int r = 0; r < rows; r++)
            out[static_cast<size_t>(t) * out_stride + static_cast<size_t>(r)] =
                ints_sum(ints_sub(sums[t][r], offset[t]));
    }
}

void q8_i8(int32_t* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const int8_t* q, size_t q_stride,
           int n_tokens) {
    const int padded_cols = static_cast<int>(round_up(cols, 64));
    const size_t block_bytes = static_cast<size_t>(kRows * padded_cols);
    const size_t ahead = static_cast<size_t>(round_up(kDotAhead, static_cast<int64_t>(block_bytes)));
    for (int r0 = 0; r0 < n_rows; r0 += kRows) {
        const int8_t* ws[kRows];
        for (int r = 0; r < kRows; r++)
            ws[r] = w + static_cast<size_t>(row_or_last(r0 + r, n_rows)) * static_cast<size_t>(padded_cols);
        const int rows = n_rows - r0 < kRows ? n_rows - r0 : kRows;
        int t = 0;
        for (; t + kDotTokens <= n_tokens; t += kDotTokens) {
            const size_t token = static_cast<size_t>(t);
            dot_block<kDotTokens>(out + token * out_stride + r0, out_stride, ws, rows, padded_cols, ahead,
                                  q + token * q_stride, q_stride);
        }
        for (; t < n_tokens; t++) {
            const size_t token = static_cast<size_t>(t);
            dot_block<1>(out + token * out_stride + r0, out_stride, ws, rows, padded_cols, ahead,
                         q + token * q_stride, q_stride);
        }
    }
}
