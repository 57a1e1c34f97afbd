// Attention of several query heads over one KV head, written once over Lanes. Each K and V row is loaded (and
// converted from f16) once for up to kAttendQueries query heads: with grouped-query attention the loads of the
// cache are what costs. Included inside the set's anonymous namespace, after lanes_rows.inl.

struct CacheF32 {
    using Element = float;
    static Lanes load16(const float* p, Whole) { return lanes_load(p); }
    static Lanes load16(const float* p, Part part) { return load(p, part); }
};
struct CacheF16 {
    using Element = uint16_t;
    static Lanes load16(const uint16_t* p, Whole) { return lanes_from_f16(p); }
    static Lanes load16(const uint16_t* p, Part part) {
        uint16_t t[16] = {};
        for (int i = 0; i < part.n; i++) t[i] = p[i];
        return lanes_from_f16(t);
    }
};

// How many positions, or vectors of columns, Q query heads take at a time: their sums fill the registers.
template <int Q>
constexpr int kAttendWidth = kAttendSums / Q < 4 ? kAttendSums / Q : 4;

// Scores of Q query heads, P positions at a time. The last block of positions repeats its last one.
template <class Cache, int Q>
inline void score_block(float* scores, size_t scores_stride, const float* q, const typename Cache::Element* k,
                        int n_positions, int head_dim, float scale) {
    constexpr int P = kAttendWidth<Q>;
    const size_t dim = static_cast<size_t>(head_dim);
    for (int p0 = 0; p0 < n_positions; p0 += P) {
        const typename Cache::Element* rows[P];
        for (int p = 0; p < P; p++) {
            rows[p] = k + static_cast<size_t>(p0 + p < n_positions ? p0 + p : n_positions - 1) * dim;
        }
        constexpr int kSums = (Q * P + 3) / 4 * 4;  // lanes_sum4 takes four at a time
        Lanes sums[kSums];
        for (Lanes& sum : sums) sum = lanes_zero();
        by_lanes(head_dim, [&](int d, auto part) {
            Lanes v[Q];
            for (int j = 0; j < Q; j++) v[j] = load(q + static_cast<size_t>(j) * dim + d, part);
            for (int p = 0; p < P; p++) {
                const Lanes key = Cache::load16(rows[p] + d, part);
                for (int j = 0; j < Q; j++) sums[j * P + p] = lanes_fma(v[j], key, sums[j * P + p]);
            }
        });
        float t[kSums];
        for (int i = 0; i < kSums; i += 4) lanes_sum4(t + i, sums[i], sums[i + 1], sums[i + 2], sums[i + 3]);
        const int valid = n_positions - p0 < P ? n_positions - p0 : P;
        for (int j = 0; j < Q; j++) {
            float* row = scores + static_cast<size_t>(j) * scores_stride + p0;
            for (int p = 0; p < valid; p++) row[p] = t[j * P + p] * scale;
        }
    }
}

// Turns a row of scores into exp(score - max) in place; returns their sum.
inline float exp_scores(float* scores, int n_positions) {
    const Lanes shift = lanes_all(largest_of(scores, n_positions));
    Lanes total = lanes_zero();
    by_lanes(n_positions, [&](int i, auto part) {
        const Lanes p = lanes_exp(lanes_sub(load(scores + i, part, kMinusInfinity), shift));
        store(scores + i, p, part);
        total = lanes_add(total, p);
    });
    return lanes_sum(total);
}

// out[d .. d + 16 * C) of Q query heads: the sum over positions of probability times V.
template <class Cache, int Q, int C, class P>
inline void mix_columns(float* out, const float* scores, size_t scores_stride, const float* inverse,
                        const typename Cache::Element* v, int n_positions, int head_dim, P part) {
    const size_t dim = static_cast<size_t>(head_dim);
    Lanes sums[Q][C];
    for (int j = 0; j < Q; j++) {
        for (int c = 0; c < C; c++) sums[j][c] = lanes_zero();
    }
    for (int p = 0; p < n_positions; p++) {
        const size_t row = static_cast<size_t>(p) * dim;
        Lanes value[C];
        for (int c = 0; c < C; c++) value[c] = Cache::load16(v + row + c * 16, part);
        for (int j = 0; j < Q; j++) {
            const Lanes probability =
                lanes_all(scores[static_cast<size_t>(j) * scores_stride + static_cast<size_t>(p)]);
            for (int c = 0; c < C; c++) sums[j][c] = lanes_fma(probability, value[c], sums[j][c]);
        }
    }
    for (int j = 0; j < Q; j++) {
        const Lanes factor = lanes_all(inverse[j]);
        for (int c = 0; c < C; c++)
            store(out + static_cast<size_t>(j) * dim + c * 16, lanes_mul(sums[j][c], factor), part);
    }
}

template <class Cache, int Q>
inline void attend_queries(float* out, const float* q, KvHead kv, int n_positions, int head_dim, float scale,
                           float* scores) {
    const auto* k = static_cast<const typename Cache::Element*>(kv.k);
    const auto* v = static_cast<const typename Cache::Element*>(kv.v);
    const size_t stride = static_cast<size_t>(round_up(n_positions, 16));
    score_block<Cache, Q>(scores, stride, q, k, n_positions, head_dim, scale);
    float inverse[Q];
    for (int j = 0; j < Q; j++) inverse[j] = 1.0f / exp_scores(scores + static_cast<size_t>(j) * stride, n_positions);
    int d = 0;
    constexpr int kColumns = kAttendWidth<Q>;
    for (; d + 16 * kColumns <= head_dim; d += 16 * kColumns) {
        mix_columns<Cache, Q, kColumns>(out + d, scores, stride, inverse, v + d, n_positions, head_dim, Whole{});
    }
    for (; d + 16 <= head_dim; d += 16) {
        mix_columns<Cache, Q, 1>(out + d, scores, stride, inverse, v + d, n_positions, head_dim, Whole{});
    }
    if (d < head_dim) {
        mix_columns<Cache, Q, 1>(out + d, scores, stride, inverse, v + d, n_positions, head_dim, Part{head_dim - d});
    }
}

template <class Cache>
inline void attend_heads(float* out, const float* q, int n_q, KvHead kv, int n_positions, int head_dim, float scale,
                         float* scores) {
    const size_t dim = static_cast<size_t>(head_dim);
    int j = 0;
    for (; j + kAttendQueries <= n_q; j += kAttendQueries) {
        const size_t at = static_cast<size_t>(j) * dim;
        attend_queries<Cache, kAttendQueries>(out + at, q + at, kv, n_positions, head_dim, scale, scores);
    }
    for (; j < n_q; j++) {
        const size_t at = static_cast<size_t>(j) * dim;
        attend_queries<Cache, 1>(out + at, q + at, kv, n_positions, head_dim, scale, scores);
    }
}

void attend(float* out, const float* q, int n_q, KvHead kv, int n_positions, int head_dim, float scale, float* scores) {
    if (kv.dtype == DType::f16) {
        attend_heads<CacheF16>(out, q, n_q, kv, n_positions, head_dim, scale, scores);
    } else {
        attend_heads<CacheF32>(out, q, n_q, kv, n_positions, head_dim, scale, scores);
    }
}
