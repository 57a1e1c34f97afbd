// Matrix products with float activations, written once over Lanes. Four rows at a time: each lane's sum is one
// chain of dependent additions (the contract fixes its order), so several rows are needed to hide the latency.
// Included inside the set's anonymous namespace, after lanes_rows.inl.

constexpr int kRows = 4;

// Calls f(row, first row index) for blocks of kRows rows; a last, partial block repeats its last row, and
// stores only what exists.
inline int row_or_last(int row, int n_rows) { return row < n_rows ? row : n_rows - 1; }

inline void store_row_sums(float* out, const Lanes (&sums)[kRows], int rows) {
    float t[kRows];
    lanes_sum4(t, sums[0], sums[1], sums[2], sums[3]);
    for (int r = 0; r < rows; r++) out[r] = t[r];
}

inline uint32_t sign_bits(const uint8_t* p) { return p[0] | static_cast<uint32_t>(p[1]) << 8; }

void sign_f32(float* out, size_t out_stride, const uint8_t* official, int n_rows, int cols, const float* x,
              size_t x_stride, int n_tokens) {
    const int steps = static_cast<int>(round_up(cols, 16) / 16);
    const size_t row_bytes = static_cast<size_t>(steps) * 2;
    for (int r0 = 0; r0 < n_rows; r0 += kRows) {
        const uint8_t* bits[kRows];
        for (int r = 0; r < kRows; r++)
            bits[r] = official + static_cast<size_t>(row_or_last(r0 + r, n_rows)) * row_bytes;
        const int rows = n_rows - r0 < kRows ? n_rows - r0 : kRows;
        for (int t = 0; t < n_tokens; t++) {
            const float* xt = x + static_cast<size_t>(t) * x_stride;
            Lanes sums[kRows] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
            for (int i = 0; i < steps; i++) {
                const Lanes v = lanes_load(xt + i * 16);
                for (int r = 0; r < kRows; r++) sums[r] = lanes_add(sums[r], lanes_flip(v, sign_bits(bits[r] + i * 2)));
            }
            store_row_sums(out + static_cast<size_t>(t) * out_stride + r0, sums, rows);
        }
    }
}

void grouped_f32(float* out, size_t out_stride, const uint8_t* official, const uint16_t* scales, int n_rows, int cols,
                 const float* x, size_t x_stride, int n_tokens) {
    const int groups = cols / 128;
    const size_t row_bytes = static_cast<size_t>(cols) / 8;
    for (int r0 = 0; r0 < n_rows; r0 += kRows) {
        const uint8_t* bits[kRows];
        const uint16_t* d[kRows];
        for (int r = 0; r < kRows; r++) {
            const size_t row = static_cast<size_t>(row_or_last(r0 + r, n_rows));
            bits[r] = official + row * row_bytes;
            d[r] = scales + row * static_cast<size_t>(groups);
        }
        const int rows = n_rows - r0 < kRows ? n_rows - r0 : kRows;
        for (int t = 0; t < n_tokens; t++) {
            const float* xt = x + static_cast<size_t>(t) * x_stride;
            Lanes sums[kRows] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
            for (int g = 0; g < groups; g++) {
                Lanes parts[kRows] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
                for (int i = g * 8; i < g * 8 + 8; i++) {
                    const Lanes v = lanes_load(xt + i * 16);
                    for (int r = 0; r < kRows; r++) {
                        parts[r] = lanes_add(parts[r], lanes_flip(v, sign_bits(bits[r] + i * 2)));
                    }
                }
                for (int r = 0; r < kRows; r++) {
                    sums[r] = lanes_fma(lanes_all(f16_to_float(d[r][g])), parts[r], sums[r]);
                }
            }
            store_row_sums(out + static_cast<size_t>(t) * out_stride + r0, sums, rows);
        }
    }
}

// Of columns [c, end) of four rows; the rows' codes begin at `codes`.
inline void add_codes(Lanes (&sums)[kRows], const uint8_t* const (&codes)[kRows], const float* x, int c, int end) {
    for (; c < end; c += 16) {
        const Lanes v = lanes_load(x + c);
        for (int r = 0; r < kRows; r++) {
            uint32_t bits;
            memcpy(&bits, codes[r] + c / 4, sizeof bits);
            sums[r] = lanes_fma(lanes_from_codes(bits), v, sums[r]);
        }
    }
}

void ternary_f32(float* out, size_t out_stride, const uint8_t* codes, const uint16_t* scales, int group, int n_rows, int cols,
                 const float* x, size_t x_stride, int n_tokens) {
    const size_t row_bytes = static_cast<size_t>(round_up(cols, 16)) / 4;
    const int groups = group > 0 ? cols / group : 0;
    for (int r0 = 0; r0 < n_rows; r0 += kRows) {
        const uint8_t* rows[kRows];
        const uint16_t* d[kRows];
        for (int r = 0; r < kRows; r++) {
            const size_t row = static_cast<size_t>(row_or_last(r0 + r, n_rows));
            rows[r] = codes + row * row_bytes;
            d[r] = scales + row * static_cast<size_t>(groups);
        }
        for (int t = 0; t < n_tokens; t++) {
            const float* xt = x + static_cast<size_t>(t) * x_stride;
            Lanes sums[kRows] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
            if (groups == 0) add_codes(sums, rows, xt, 0, cols);
            for (int g = 0; g < groups; g++) {
                Lanes parts[kRows] = {lanes_zero(), lanes_zero(), lanes_zero(), lanes_zero()};
                add_codes(parts, rows, xt, g * group, (g + 1) * group);
                for (int r = 0; r < kRows; r++) sums[r] = lanes_fma(lanes_all(f16_to_float(d[r][g])), parts[r], sums[r]);
            }
            store_row_sums(out + static_cast<size_t>(t) * out_stride + r0, sums, n_rows - r0 < kRows ? n_rows - r0 : kRows);
        }
    }
}

// The element types of a dense matrix: how 16 of them become Lanes.
struct DenseF32 {
    using Element = float;
    static Lanes load(const float* p) { return lanes_load(p); }
};
struct DenseF16 {
    using Element = uint16_t;
    static Lanes load(const uint16_t* p) { return lanes_from_f16(p); }
};
struct DenseBf16 {
    using Element = uint16_t;
    static Lanes load(const uint16_t* p) { return lanes_from_bf16(p); }
};
struct DenseI8 {
    using Element = int8_t;
    static Lanes load(const int8_t* p) { return lanes_from_i8(p); }
};

// How many bytes behind rows of row_bytes those lie that are fetched while these are met: 16 KiB, rounded up to whole blocks of
// rows. The hardware does not do it well where rows are short (135M in f16, 2 threads of a Zen 4: 66 tokens/s without, 109
// with; dot_rows.inl has more).
inline size_t rows_ahead(size_t row_bytes) {
    return static_cast<size_t>(round_up(16384, static_cast<int64_t>(kRows * row_bytes)));
}

// kRows rows times T tokens; xs: T rows, x_stride floats apart. ahead: how far behind each row the one to fetch lies, or 0.
template <class Type, int T>
inline void dense_block(float* out, size_t out_stride, const typename Type::Element* const (&w)[kRows], int rows,
                        int steps, const float* x, size_t x_stride, size_t ahead) {
    constexpr int kStepsOfLine = 64 / (16 * static_cast<int>(sizeof(typename Type::Element)));
    Lanes sums[T][kRows];
    for (int t = 0; t < T; t++) {
        for (int r = 0; r < kRows; r++) sums[t][r] = lanes_zero();
    }
    for (int i = 0; i < steps; i++) {
        Lanes v[T];
        for (int t = 0; t < T; t++) v[t] = lanes_load(x + static_cast<size_t>(t) * x_stride + i * 16);
        if (ahead != 0 && i % kStepsOfLine == 0) {
            for (int r = 0; r < kRows; r++) prefetch_far(reinterpret_cast<const uint8_t*>(w[r] + i * 16) + ahead);
        }
        for (int r = 0; r < kRows; r++) {
            const Lanes weights = Type::load(w[r] + i * 16);
            for (int t = 0; t < T; t++) sums[t][r] = lanes_fma(weights, v[t], sums[t][r]);
        }
    }
    for (int t = 0; t < T; t++) store_row_sums(out + static_cast<size_t>(t) * out_stride, sums[t], rows);
}

template <class Type>
inline void dense(float* out, size_t out_stride, const typename Type::Element* w, int n_rows, int cols, const float* x,
                  size_t x_stride, int n_tokens) {
    const int steps = static_cast<int>(round_up(cols, 16) / 16);
    const size_t row = static_cast<size_t>(round_up(cols, 64));
    const size_t ahead = rows_ahead(row * sizeof(typename Type::Element));
    for (int r0 = 0; r0 < n_rows; r0 += kRows) {
        const typename Type::Element* ws[kRows];
        for (int r = 0; r < kRows; r++) ws[r] = w + static_cast<size_t>(row_or_last(r0 + r, n_rows)) * row;
        const int rows = n_rows - r0 < kRows ? n_rows - r0 : kRows;
        int t = 0;
        for (; t + kDenseTokens <= n_tokens; t += kDenseTokens) {
            dense_block<Type, kDenseTokens>(out + static_cast<size_t>(t) * out_stride + r0, out_stride, ws, rows, steps,
                                            x + static_cast<size_t>(t) * x_stride, x_stride, t == 0 ? ahead : 0);
        }
        for (; t < n_tokens; t++) {
            dense_block<Type, 1>(out + static_cast<size_t>(t) * out_stride + r0, out_stride, ws, rows, steps,
                                 x + static_cast<size_t>(t) * x_stride, x_stride, t == 0 ? ahead : 0);
        }
    }
}

void dense_f32(float* out, size_t out_stride, const void* w, DType dtype, int n_rows, int cols, const float* x,
               size_t x_stride, int n_tokens) {
    switch (dtype) {
        case DType::f32:
            dense<DenseF32>(out, out_stride, static_cast<const float*>(w), n_rows, cols, x, x_stride, n_tokens);
            return;
        case DType::f16:
            dense<DenseF16>(out, out_stride, static_cast<const uint16_t*>(w), n_rows, cols, x, x_stride, n_tokens);
            return;
        case DType::bf16:
            dense<DenseBf16>(out, out_stride, static_cast<const uint16_t*>(w), n_rows, cols, x, x_stride, n_tokens);
            return;
        case DType::q8:
            dense<DenseI8>(out, out_stride, static_cast<const int8_t*>(w), n_rows, cols, x, x_stride, n_tokens);
            return;
    }
}

void q8_f32(float* out, size_t out_stride, const int8_t* w, int n_rows, int cols, const float* x, size_t x_stride,
            int n_tokens) {
    dense<DenseI8>(out, out_stride, w, n_rows, cols, x, x_stride, n_tokens);
}
