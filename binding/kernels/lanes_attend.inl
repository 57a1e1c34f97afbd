// Attention of several queries over one KV head, written once over Lanes. Included inside the set's anonymous namespace,
// after lanes_rows.inl.
//
// Scores have positions as lanes, so that nothing is added across a vector: the keys of 16 positions lie side by side
// (kernels.h, KvHead). The contract's order, 16 lanes over the head's elements and then a tree, is kept: the sum over
// the elements d = lane, lane + 16, ... is one chain of multiply-adds, and the 16 chains are merged as the tree says.
// Each vector of keys or values is loaded (and converted) once for up to kAttendQueries queries, which are the query
// heads that share a KV head, of one token or of several.

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
struct CacheQ8 {
    using Element = int8_t;
    static Lanes load16(const int8_t* p, Whole) { return lanes_from_i8(p); }
    static Lanes load16(const int8_t* p, Part part) {
        int8_t t[16] = {};
        for (int i = 0; i < part.n; i++) t[i] = p[i];
        return lanes_from_i8(t);
    }
};

// Keys or values of this many bytes are met by all queries of a call before the next ones are: half of a small
// first-level cache.
constexpr int kAttendTileBytes = 16 << 10;
// How many vectors (blocks of 16 positions, or 16 columns of V) Q queries take at a time: their sums fill the registers.
template <int Q>
constexpr int kAttendWidth = kAttendSums / Q < 4 ? kAttendSums / Q : 4;

// Fetches the next tile from memory while this one is met. Keys are met in an order that no hardware prefetcher follows,
// and values, a few columns at a time, in another one; the next tile is asked for from its start to its end, in step with
// what is loaded of this one. (One core of a Zen 4 read keys and values at 8.5 GB/s with prefetches in the order of use.)
struct Ahead {
    const uint8_t* next;
    size_t step;  // 0 where the tile has been fetched already
    explicit Ahead(const void* tile, bool wanted) : next(static_cast<const uint8_t*>(tile)), step(wanted ? 1 : 0) {}
    void loaded(size_t bytes) {
        prefetch_far(next);
        next += bytes * step;
    }
};

// What one call reads and where it keeps what it makes.
struct Attention {
    AttendQuery* queries;
    KvHead kv;
    int head_dim;
    float scale;
    float* scores;         // (queries, stride)
    size_t scores_stride;  // a multiple of 16, at least the positions of every query
};

// The 16 lanes in the order in which depth-first merging wants them: after lanes 0 and 8 their sum, after 4 and 12
// theirs and then both, and so on.
constexpr int kLaneOrder[16] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

// Scores of queries [j, j + Q) and positions [p0, p0 + 16 B), p0 being a multiple of 16.
template <class Cache, int Q, int B>
inline void score_blocks(const Attention& a, int j0, int p0, Ahead& ahead) {
    const auto dim = static_cast<size_t>(a.head_dim);
    const auto* keys = static_cast<const typename Cache::Element*>(a.kv.k) + static_cast<size_t>(p0) * dim;
    const float* q[Q];
    for (int j = 0; j < Q; j++) q[j] = a.queries[j0 + j].q;
    Lanes waiting[5][Q * B];  // finished parts of the tree, at last the whole of it
    int n_waiting = 0;
    for (unsigned i = 0; i < 16; i++) {
        Lanes sums[Q * B];
        for (Lanes& sum : sums) sum = lanes_zero();
        for (size_t d = static_cast<size_t>(kLaneOrder[i]); d < dim; d += 16) {
            Lanes key[B];
            for (size_t b = 0; b < B; b++) {
                key[b] = Cache::load16(keys + (b * dim + d) * 16, Whole{});
                ahead.loaded(16 * sizeof(typename Cache::Element));
            }
            for (int j = 0; j < Q; j++) {
                const Lanes element = lanes_all(q[j][d]);
                for (int b = 0; b < B; b++) sums[j * B + b] = lanes_fma(element, key[b], sums[j * B + b]);
            }
        }
        for (unsigned odd = i; odd & 1; odd >>= 1) {
            n_waiting--;
            for (int s = 0; s < Q * B; s++) sums[s] = lanes_add(waiting[n_waiting][s], sums[s]);
        }
        for (int s = 0; s < Q * B; s++) waiting[n_waiting][s] = sums[s];
        n_waiting++;
    }
    for (int j = 0; j < Q; j++) {
        float* scores = a.scores + static_cast<size_t>(j0 + j) * a.scores_stride + p0;
        for (int b = 0; b < B; b++) {
            Lanes score = waiting[0][j * B + b];
            if (a.kv.dtype == DType::q8) score = lanes_mul(score, lanes_load(a.kv.k_scale + p0 + 16 * b));
            lanes_store(scores + 16 * b, lanes_mul(score, lanes_all(a.scale)));
        }
    }
}

template <class Cache, int Q>
inline void score_tile(const Attention& a, int j0, int p0, int p1, Ahead ahead) {
    constexpr int B = kAttendWidth<Q>;
    int p = p0;
    for (; p + 16 * B <= p1; p += 16 * B) score_blocks<Cache, Q, B>(a, j0, p, ahead);
    for (; p < p1; p += 16) score_blocks<Cache, Q, 1>(a, j0, p, ahead);
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

// out[d .. d + 16 C) of queries [j0, j0 + Q): adds probability times V over positions [p0, p1) to what is there.
template <class Cache, int Q, int C, class P>
inline void mix_columns(const Attention& a, int j0, int p0, int p1, int d, P part, Ahead& ahead) {
    const auto dim = static_cast<size_t>(a.head_dim);
    const auto* v = static_cast<const typename Cache::Element*>(a.kv.v) + d;
    const float* scores[Q];
    Lanes sums[Q][C];
    for (int j = 0; j < Q; j++) {
        scores[j] = a.scores + static_cast<size_t>(j0 + j) * a.scores_stride;
        for (int c = 0; c < C; c++) {
            sums[j][c] = p0 == 0 ? lanes_zero() : load(a.queries[j0 + j].out + d + c * 16, part);
        }
    }
    for (int p = p0; p < p1; p++) {
        Lanes value[C];
        for (int c = 0; c < C; c++) {
            value[c] = Cache::load16(v + static_cast<size_t>(p) * dim + c * 16, part);
            ahead.loaded(16 * sizeof(typename Cache::Element));
        }
        for (int j = 0; j < Q; j++) {
            const Lanes probability = lanes_all(scores[j][p]);
            for (int c = 0; c < C; c++) sums[j][c] = lanes_fma(probability, value[c], sums[j][c]);
        }
    }
    for (int j = 0; j < Q; j++) {
        for (int c = 0; c < C; c++) store(a.queries[j0 + j].out + d + c * 16, sums[j][c], part);
    }
}

template <class Cache, int Q>
inline void mix_range(const Attention& a, int j0, int p0, int p1, Ahead& ahead) {
    if (p0 >= p1) return;
    constexpr int C = kAttendWidth<Q>;
    int d = 0;
    for (; d + 16 * C <= a.head_dim; d += 16 * C) mix_columns<Cache, Q, C>(a, j0, p0, p1, d, Whole{}, ahead);
    for (; d + 16 <= a.head_dim; d += 16) mix_columns<Cache, Q, 1>(a, j0, p0, p1, d, Whole{}, ahead);
    if (d < a.head_dim) mix_columns<Cache, Q, 1>(a, j0, p0, p1, d, Part{a.head_dim - d}, ahead);
}

// Positions [p0, p1) as far as each query goes: those that all Q reach together, the rest one by one. A later token's
// value may be anything, infinite too, so it may not even meet a probability of zero.
template <class Cache, int Q>
inline void mix_tile(const Attention& a, int j0, int p0, int p1, Ahead ahead) {
    int common = p1;
    for (int j = 0; j < Q; j++) common = a.queries[j0 + j].n_positions < common ? a.queries[j0 + j].n_positions : common;
    mix_range<Cache, Q>(a, j0, p0, common, ahead);
    for (int j = 0; j < Q; j++) {
        const int end = a.queries[j0 + j].n_positions < p1 ? a.queries[j0 + j].n_positions : p1;
        mix_range<Cache, 1>(a, j0 + j, common > p0 ? common : p0, end, ahead);
    }
}

template <int Q>
struct Queries {
    static constexpr int count = Q;
};

// Calls f(j, Queries<Q>) for groups of kAttendQueries queries, and then of fewer.
template <int Q, class F>
inline void by_queries(int j, int n, F f) {
    for (; j + Q <= n; j += Q) f(j, Queries<Q>{});
    if constexpr (Q > 1) by_queries<Q / 2>(j, n, f);
}

template <class Cache>
inline void attend_all(const Attention& a, int n_queries, int n_positions) {
    const int position_bytes = a.head_dim * static_cast<int>(sizeof(typename Cache::Element));
    const int fitting = kAttendTileBytes / position_bytes / 64 * 64;
    const int tile = fitting < 64 ? 64 : fitting;
    const auto* k = static_cast<const uint8_t*>(a.kv.k);
    const auto* v = static_cast<const uint8_t*>(a.kv.v);
    const auto place = [&](const uint8_t* cache, int p) { return cache + static_cast<size_t>(p) * static_cast<size_t>(position_bytes); };
    for (int p0 = 0; p0 < n_positions; p0 += tile) {
        const bool last = p0 + tile >= n_positions;
        const int p1 = last ? n_positions : p0 + tile;
        const uint8_t* next = last ? v : place(k, p1);
        by_queries<kAttendQueries>(0, n_queries, [&](int j, auto q) {
            score_tile<Cache, decltype(q)::count>(a, j, p0, p1, Ahead(next, j == 0));
        });
    }
    for (int j = 0; j < n_queries; j++) {
        float* scores = a.scores + static_cast<size_t>(j) * a.scores_stride;
        const int n = a.queries[j].n_positions;
        a.queries[j].inverse = 1.0f / exp_scores(scores, n);
        if (a.kv.dtype == DType::q8) multiply(scores, scores, a.kv.v_scale, n);
    }
    for (int p0 = 0; p0 < n_positions; p0 += tile) {
        const bool last = p0 + tile >= n_positions;
        const int p1 = last ? n_positions : p0 + tile;
        by_queries<kAttendQueries>(0, n_queries, [&](int j, auto q) {
            mix_tile<Cache, decltype(q)::count>(a, j, p0, p1, Ahead(place(v, p1), j == 0 && !last));
        });
    }
    for (int j = 0; j < n_queries; j++) {
        const Lanes factor = lanes_all(a.queries[j].inverse);
        by_lanes(a.head_dim, [&](int d, auto part) {
            store(a.queries[j].out + d, lanes_mul(load(a.queries[j].out + d, part), factor), part);
        });
    }
}

void attend(AttendQuery* queries, int n_queries, KvHead kv, int head_dim, float scale, float* scores) {
    int n_positions = 0;
    for (int j = 0; j < n_queries; j++) {
        n_positions = queries[j].n_positions > n_positions ? queries[j].n_positions : n_positions;
    }
    const Attention a{queries, kv, head_dim, scale, scores, static_cast<size_t>(round_up(n_positions, 16))};
    switch (kv.dtype) {
        case DType::f16: return attend_all<CacheF16>(a, n_queries, n_positions);
        case DType::q8: return attend_all<CacheQ8>(a, n_queries, n_positions);
        default: return attend_all<CacheF32>(a, n_queries, n_positions);
    }
}
