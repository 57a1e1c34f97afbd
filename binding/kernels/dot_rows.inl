// int8 matrices times int8 activations, written once over the set's dot product of bytes (dot_add). Four rows times
// kDotTokens tokens at a time. Included inside the set's anonymous namespace, after its *_vectors.inl.
//
// Later rows are fetched meanwhile. How far ahead matters: rows of 576 (a small model's head, mostly from the third-level
// cache) give 14 Gw/s with one token and 4 rows ahead, 50 with 16 KiB ahead (avx2, one Zen 4 core at 3.6 GHz); rows of
// 4096 from DRAM 24 GB/s either way.
//
// Two tokens (the planes of one) go one after the other: 32000 x 2048 from DRAM at 36 to 44 GB/s, where both at once get
// 21 to 25 (avx512vnni, one core). Prefetches that find no room are dropped, and the second token asks again.
//
// Where the processor multiplies unsigned by signed bytes only (kDotOffset = 128), the weights are read as w + 128
// and 128 * (the sum of the activations), which depends on the token alone, is subtracted at the end. Exact modulo
// 2^32. That sum is made once a token: 8 tokens do 390 Gw/s (avx512vnni), 210 (avxvnni), of 536 and 268 (one Zen 5 core).

constexpr int kDotBlock = 64;  // tokens whose offsets there are at a time

// 128 * (the sum of a token's activations) where weights are read as w + 128.
inline Ints dot_offset(const int8_t* q, int cols) {
    Ints offset = ints_zero();
    if constexpr (kDotOffset != 0) {
        for (int c = 0; c < cols; c += kBytes) {
            offset = dot_add(offset, dot_weights(bytes_zero()), bytes_load(reinterpret_cast<const uint8_t*>(q + c)));
        }
    }
    return offset;
}

// What four rows are multiplied with: T tokens and their offsets.
struct DotTokens {
    const int8_t* q;
    size_t q_stride;
    const Ints* offsets;
};

// Fetch: these are the first tokens that meet these rows.
template <int T, bool Fetch>
ONEBIT_INLINE void dot_block(int32_t* out, size_t out_stride, const int8_t* const (&w)[kRows], int rows, int cols, size_t ahead,
                             DotTokens tokens) {
    Ints sums[T][kRows];
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        unrolled<kRows>([&](auto r) ONEBIT_INLINE_LAMBDA { sums[t][r] = ints_sub(ints_zero(), tokens.offsets[t]); });
    });
    for (int c = 0; c < cols; c += kBytes) {
        Bytes a[T];
        unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
            a[t] = bytes_load(reinterpret_cast<const uint8_t*>(tokens.q) + static_cast<size_t>(t) * tokens.q_stride + c);
        });
        unrolled<kRows>([&](auto r) ONEBIT_INLINE_LAMBDA {
            if constexpr (Fetch) prefetch_far(reinterpret_cast<const uint8_t*>(w[r]) + c + ahead);
            const DotWeights weights = dot_weights(bytes_load(reinterpret_cast<const uint8_t*>(w[r]) + c));
            unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA { sums[t][r] = dot_add(sums[t][r], weights, a[t]); });
        });
    }
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        int32_t* to = out + static_cast<size_t>(t) * out_stride;
        if (rows == kRows) return ints_sum4(to, sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
        int32_t four[kRows];
        ints_sum4(four, sums[t][0], sums[t][1], sums[t][2], sums[t][3]);
        memcpy(to, four, static_cast<size_t>(rows) * sizeof(int32_t));
    });
}

inline void dot_tokens(int32_t* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const int8_t* q, size_t q_stride,
                       int n_tokens) {
    const size_t ahead = rows_ahead(static_cast<size_t>(cols));
    Ints offsets[kDotBlock];
    for (int t = 0; t < n_tokens; t++) offsets[t] = dot_offset(q + static_cast<size_t>(t) * q_stride, cols);
    for (int r0 = 0; r0 < n_rows; r0 += kRows) {
        const int8_t* ws[kRows];
        for (int r = 0; r < kRows; r++)
            ws[r] = w + static_cast<size_t>(row_or_last(r0 + r, n_rows)) * static_cast<size_t>(cols);
        const int rows = n_rows - r0 < kRows ? n_rows - r0 : kRows;
        const auto tokens = [&](int t, auto group, auto fetch) {
            const size_t token = static_cast<size_t>(t);
            dot_block<decltype(group)::value, fetch>(out + token * out_stride + r0, out_stride, ws, rows, cols, ahead,
                                                     {q + token * q_stride, q_stride, offsets + t});
        };
        if (n_tokens <= 2) {
            for (int t = 0; t < n_tokens; t++) tokens(t, Constant<1>{}, Constant<true>{});
        } else {
            by_groups<kDotTokens>(n_tokens, [&](int t, auto group) {
                if (t == 0) return tokens(t, group, Constant<true>{});
                tokens(t, group, Constant<false>{});
            });
        }
    }
}

void q8_i8(int32_t* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const int8_t* q, size_t q_stride,
           int n_tokens) {
    for (int t = 0; t < n_tokens; t += kDotBlock) {
        const size_t token = static_cast<size_t>(t);
        dot_tokens(out + token * out_stride, out_stride, w, n_rows, static_cast<int>(round_up(cols, 64)), q + token * q_stride,
                   q_stride, n_tokens - t < kDotBlock ? n_tokens - t : kDotBlock);
    }
}
