// Attention of several queries over one KV head, written once over Lanes. Included inside the set's anonymous namespace,
// after lanes_rows.inl.
//
// Scores have positions as lanes, so that nothing is added across a vector: the keys of 16 positions lie side by side
// (kernels.h, KvHead), and a score is one chain of multiply-adds over the head's elements, in their order. (The order of other
// sums, 16 chains and a tree of additions, would cost a fifth more in a head of 64 elements, and registers for what waits.)
// Each vector of keys or values is loaded (and converted) once for up to kAttendQueries queries, which are the query
// heads that share a KV head, of one token or of several.

struct CacheF32 {
    using Element = float;
    static constexpr int kQueries = kAttendQueries < 4 ? kAttendQueries : 4;  // at a time; rarely used, so less code
    static Lanes load16(const float* p, Whole) { return lanes_load(p); }
    static Lanes load16(const float* p, Part part) { return load(p, part); }
};
struct CacheF16 {
    using Element = uint16_t;
    static constexpr int kQueries = kAttendQueries;
    static Lanes load16(const uint16_t* p, Whole) { return lanes_from_f16(p); }
    static Lanes load16(const uint16_t* p, Part part) {
        uint16_t t[16] = {};
        for (int i = 0; i < part.n; i++) t[i] = p[i];
        return lanes_from_f16(t);
    }
};
struct CacheQ8 {
    using Element = int8_t;
    static constexpr int kQueries = kAttendQueries < 4 ? kAttendQueries : 4;
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
constexpr int smaller_of(int a, int b) { return a < b ? a : b; }
constexpr int larger_of(int a, int b) { return a > b ? a : b; }
// How many blocks of 16 positions of keys, or times 16 columns of values, Q queries take at a time: such as fill a tile, and 64
// columns.
template <int Q>
constexpr int kAttendWidth = kAttendSums / Q >= 4 ? 4 : kAttendSums / Q >= 2 ? 2 : 1;

inline const void* bytes_on(const void* p, size_t bytes) { return static_cast<const uint8_t*>(p) + bytes; }
inline const float* floats_on(const float* p, size_t bytes) { return static_cast<const float*>(bytes_on(p, bytes)); }

// Such that position p and the others of its chunk are found as if all chunks lay in a row.
inline KvHead chunk_of(KvHead kv, int p, size_t position_bytes) {
    const auto chunk = static_cast<size_t>(p / kKvChunk);
    const size_t moved = chunk * (kv.chunk_stride - kKvChunk * position_bytes);
    const size_t scales_moved = chunk * (kv.scale_stride - kKvChunk * sizeof(float));
    kv.k = bytes_on(kv.k, moved);
    kv.v = bytes_on(kv.v, moved);
    if (kv.dtype == DType::q8) {
        kv.k_scale = floats_on(kv.k_scale, scales_moved);
        kv.v_scale = floats_on(kv.v_scale, scales_moved);
    }
    return kv;
}

// What a call reads, in order: tiles of keys, tiles of values, and what the thread reads after that. It is fetched a tile
// ahead, from start to end, in step with what is loaded: values, a few columns at a time, are met in an order that no hardware
// prefetcher follows. (One core of a Zen 4 read keys and values at 8.5 GB/s with prefetches in the order of use.)
struct Stream {
    KvHead kv;
    size_t position_bytes;
    int first, n_positions, tile;  // first: of a tile
    const void* after;
    bool in_values = false;
    int p = first;  // the tile that is being fetched
    const uint8_t* next = nullptr;
    ptrdiff_t left = 0;  // bytes of it; a little less than none at its end

    // Goes to the next tile, or to what comes after, or, where that is nothing, anywhere: neither has an end.
    void step() {
        p += tile;
        if (p >= n_positions && !in_values) p = first, in_values = true;
        if (p >= n_positions) {
            next = static_cast<const uint8_t*>(after ? after : kv.k);
            left = PTRDIFF_MAX;
            return;
        }
        const KvHead chunk = chunk_of(kv, p, position_bytes);
        const int positions = smaller_of(n_positions - p, tile);
        next = static_cast<const uint8_t*>(bytes_on(in_values ? chunk.v : chunk.k, static_cast<size_t>(p) * position_bytes));
        left = static_cast<ptrdiff_t>(static_cast<size_t>(positions) * position_bytes);
    }
};

// Keeps the stream ahead of one tile. It counts in fields of its own, which nobody else can change.
class Ahead {
public:
    // stream: null where the tile has been read already. soon: what the first-level cache should have, in the same steps.
    explicit Ahead(Stream* stream, const uint8_t* soon = nullptr) : stream_(stream), soon_(soon) {
        if (stream) next_ = stream->next, left_ = stream->left;
    }
    Ahead(const Ahead&) = delete;
    Ahead& operator=(const Ahead&) = delete;
    ~Ahead() {
        if (stream_) stream_->next = next_, stream_->left = left_;
    }

    // So many bytes of the tile are loaded.
    template <int Bytes>
    ONEBIT_INLINE void loaded() {
        if (!stream_) return;
        if (left_ <= 0) {
            stream_->step();
            next_ = stream_->next, left_ = stream_->left;
        }
        left_ -= Bytes;
        fetch<Bytes / 32>();
        if constexpr (Bytes % 32 != 0) {
            if ((owed_ += Bytes % 32) < 32) return;
            owed_ -= 32;
            fetch<1>();
        }
    }

private:
    // Half a line N times. A prefetch that finds no room is dropped, so lines come one by one, and every one is asked for twice.
    template <int N>
    ONEBIT_INLINE void fetch() {
        unrolled<N>([&](auto i) ONEBIT_INLINE_LAMBDA { prefetch_far(next_ + i * 32); });
        next_ += N * 32;
        if (!soon_) return;
        unrolled<(N + 1) / 2>([&](auto i) ONEBIT_INLINE_LAMBDA { prefetch_near(soon_ + i * 64); });
        soon_ += N * 32;
    }

    Stream* stream_;
    const uint8_t *soon_, *next_ = nullptr;
    ptrdiff_t left_ = 0;
    int owed_ = 0;
};

// What one call reads and where it keeps what it makes. Queries go through it in groups (by_groups), and rows of a group of
// Q lie interleaved: 16 elements of the first query's row, 16 of the second's, ..., the next 16 of the first's. What is
// done with one element of all queries then needs one pointer; with rows apart the pointers alone fill the registers.
struct Attention {
    AttendQuery* queries;
    KvHead kv;
    int head_dim;
    float scale;
    float* q;       // (queries, q_stride)
    float* scores;  // (queries, scores_stride)
    size_t q_stride, scores_stride;  // multiples of 16: at least head_dim, and the positions of every query
};

// Where the first row of the group from query j on begins.
inline float* q_rows(const Attention& a, int j) { return a.q + static_cast<size_t>(j) * a.q_stride; }
inline float* score_rows(const Attention& a, int j) { return a.scores + static_cast<size_t>(j) * a.scores_stride; }

template <int Q>
inline void interleave_queries(const Attention& a, int j0) {
    for (int j = 0; j < Q; j++) {
        float* to = q_rows(a, j0) + j * 16;
        by_lanes(a.head_dim, [&](int d, auto part) { lanes_store(to + d * Q, load(a.queries[j0 + j].q + d, part)); });
    }
}

// Adds one element of B blocks of keys, each `block` elements long, times that of each query, to the sums (query by query).
template <class Cache, int Q, int B>
ONEBIT_INLINE void score_element(Lanes (&sums)[Q * B], const float* q, const typename Cache::Element* keys, size_t block) {
    Lanes key[B];
    unrolled<B>([&](auto b) ONEBIT_INLINE_LAMBDA { key[b] = Cache::load16(keys + b * block, Whole{}); });
    unrolled<Q>([&](auto j) ONEBIT_INLINE_LAMBDA {
        const Lanes element = lanes_all(q[j * 16]);
        unrolled<B>([&](auto b) ONEBIT_INLINE_LAMBDA { sums[j * B + b] = lanes_fma(element, key[b], sums[j * B + b]); });
    });
}

// Has clang finish a sum before it loads for the next ones: it loads ahead until AVX2's 16 registers do not last, and scores take
// 1.35 times as long. GCC chooses well by itself.
#if defined(__clang__) && defined(__AVX2__) && !defined(__AVX512F__)
ONEBIT_INLINE void sum_now(Lanes& sum) { __asm__("" : "+x"(sum.a), "+x"(sum.b)); }
#else
ONEBIT_INLINE void sum_now(Lanes&) {}
#endif

// Scores of queries [j, j + Q) and positions [p0, p0 + 16 B), p0 being a multiple of 16.
template <class Cache, int Q, int B>
inline void score_blocks(const Attention& a, int j0, int p0, Ahead& ahead) {
    constexpr int kBytes = B * 16 * static_cast<int>(sizeof(typename Cache::Element));
    const auto dim = static_cast<size_t>(a.head_dim), block = dim * 16;
    const auto* keys = static_cast<const typename Cache::Element*>(a.kv.k) + static_cast<size_t>(p0) * dim;
    const float* q = q_rows(a, j0);
    Lanes sums[Q * B];
    unrolled<Q * B>([&](auto s) ONEBIT_INLINE_LAMBDA { sums[s] = lanes_zero(); });
    size_t d = 0;
    for (; d + 4 <= dim; d += 4, keys += 4 * 16) {
        ahead.template loaded<4 * kBytes>();
        const float* four = q + d / 16 * 16 * Q + d % 16;
        unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA {
            score_element<Cache, Q, B>(sums, four + i, keys + i * 16, block);
            unrolled<Q * B>([&](auto s) ONEBIT_INLINE_LAMBDA { sum_now(sums[s]); });
        });
    }
    for (; d < dim; d++, keys += 16) {
        ahead.template loaded<kBytes>();
        score_element<Cache, Q, B>(sums, q + d / 16 * 16 * Q + d % 16, keys, block);
    }
    float* scores = score_rows(a, j0) + p0 * Q;
    unrolled<B>([&](auto b) ONEBIT_INLINE_LAMBDA {
        unrolled<Q>([&](auto j) ONEBIT_INLINE_LAMBDA {
            Lanes score = sums[j * B + b];
            if (a.kv.dtype == DType::q8) score = lanes_mul(score, lanes_load(a.kv.k_scale + p0 + 16 * b));
            lanes_store(scores + (b * Q + j) * 16, lanes_mul(score, lanes_all(a.scale)));
        });
    });
}

template <class Cache, int Q>
inline void score_tile(const Attention& a, int j0, int p0, int p1, Stream* stream) {
    constexpr int B = kAttendWidth<Q>;
    const auto block = static_cast<size_t>(a.head_dim) * 16 * sizeof(typename Cache::Element);
    const auto* following = static_cast<const uint8_t*>(a.kv.k) + (static_cast<size_t>(p0 / 16) + B) * block;
    Ahead ahead(stream, Q > 1 ? following : nullptr);  // a single query waits for memory, not for the second-level cache
    int p = p0;
    for (; p + 16 * B <= p1; p += 16 * B) score_blocks<Cache, Q, B>(a, j0, p, ahead);
    for (; p < p1; p += 16) score_blocks<Cache, Q, 1>(a, j0, p, ahead);
}

// Turns row j of a group's scores into exp(score - max) and sums them up; int8 values have their scales multiplied in.
template <int Q>
inline void exp_row(const Attention& a, int j0, int j) {
    AttendQuery& query = a.queries[j0 + j];
    const int start = query.first / 16 * 16;  // positions before the query's first are in no sum: exp(-inf) is 0
    float* row = score_rows(a, j0) + j * 16 + start * Q;
    for (int p = start; p < query.first; p++) row[p - start] = kMinusInfinity;
    const Lanes shift = lanes_all(largest_of(row, query.n_positions - start, Q));
    Lanes total = lanes_zero();
    by_lanes(query.n_positions - start, [&](int i, auto part) {
        const Lanes e = lanes_exp(lanes_sub(load(row + i * Q, part, kMinusInfinity), shift));
        total = lanes_add(total, e);
        const int p = start + i;
        store(row + i * Q, a.kv.dtype == DType::q8 ? lanes_mul(e, load(chunk_of(a.kv, p, 0).v_scale + p, part)) : e, part);
    });
    query.inverse = 1.0f / lanes_sum(total);
}

// out[d .. d + 16 C) of queries [j0, j0 + Q): adds probability times V over positions [p0, p1) to what is there, which is
// nothing yet before a query's first position. Their
// probabilities lie interleaved from `rows` on, with those of other queries too: 16 positions are `step` floats.
template <class Cache, int Q, int C, class P>
inline void mix_columns(const Attention& a, int j0, const float* rows, int step, int p0, int p1, int d, P part, Ahead& ahead) {
    const auto dim = static_cast<size_t>(a.head_dim);
    const auto* v = static_cast<const typename Cache::Element*>(a.kv.v) + static_cast<size_t>(p0) * dim + d;
    Lanes sums[Q][C];
    unrolled<Q>([&](auto j) ONEBIT_INLINE_LAMBDA {
        unrolled<C>([&](auto c) ONEBIT_INLINE_LAMBDA {
            sums[j][c] = p0 == a.queries[j0 + j].first ? lanes_zero() : load(a.queries[j0 + j].out + d + c * 16, part);
        });
    });
    for (int p = p0; p < p1;) {
        const int end = (p / 16 + 1) * 16 < p1 ? (p / 16 + 1) * 16 : p1;
        const float* probability = rows + p / 16 * step + p % 16;
        for (; p < end; p++, v += dim, probability++) {
            ahead.template loaded<C * 16 * static_cast<int>(sizeof(typename Cache::Element))>();
            Lanes value[C];
            unrolled<C>([&](auto c) ONEBIT_INLINE_LAMBDA { value[c] = Cache::load16(v + c * 16, part); });
            unrolled<Q>([&](auto j) ONEBIT_INLINE_LAMBDA {
                const Lanes factor = lanes_all(probability[j * 16]);
                unrolled<C>([&](auto c) ONEBIT_INLINE_LAMBDA { sums[j][c] = lanes_fma(factor, value[c], sums[j][c]); });
            });
        }
    }
    unrolled<Q>([&](auto j) ONEBIT_INLINE_LAMBDA {
        unrolled<C>([&](auto c) ONEBIT_INLINE_LAMBDA { store(a.queries[j0 + j].out + d + c * 16, sums[j][c], part); });
    });
}

template <class Cache, int Q>
inline void mix_range(const Attention& a, int j0, const float* rows, int step, int p0, int p1, Ahead& ahead) {
    if (p0 >= p1) return;
    constexpr int C = kAttendWidth<Q>;
    int d = 0;
    for (; d + 16 * C <= a.head_dim; d += 16 * C) {
        mix_columns<Cache, Q, C>(a, j0, rows, step, p0, p1, d, Whole{}, ahead);
    }
    if constexpr (C > 1) {
        for (; d + 16 <= a.head_dim; d += 16) mix_columns<Cache, Q, 1>(a, j0, rows, step, p0, p1, d, Whole{}, ahead);
    }
    if (d == a.head_dim) return;
    for (int j = 0; j < Q; j++) {  // one by one: no common head has such columns
        mix_columns<Cache, 1, 1>(a, j0 + j, rows + j * 16, step, p0, p1, d, Part{a.head_dim - d}, ahead);
    }
}

// Positions [p0, p1) as far as each query goes: those that all Q reach together, the rest one by one, before and behind
// them. A value that a query does not reach may be anything, infinite too, so it may not even meet a probability of zero.
template <class Cache, int Q>
inline void mix_tile(const Attention& a, int j0, int p0, int p1, Stream* stream) {
    const float* rows = score_rows(a, j0);
    Ahead ahead(stream);
    int from = p0, to = p1;  // what all have in common
    for (int j = 0; j < Q; j++) {
        from = larger_of(from, a.queries[j0 + j].first);
        to = smaller_of(to, a.queries[j0 + j].n_positions);
    }
    from = smaller_of(from, p1);
    to = larger_of(to, from);
    for (int side = 0; side < 2; side++) {
        const bool before = side == 0;
        for (int j = 0; j < Q; j++) {
            const AttendQuery& query = a.queries[j0 + j];
            const int start = larger_of(before ? p0 : to, query.first), end = smaller_of(before ? from : p1, query.n_positions);
            mix_range<Cache, 1>(a, j0 + j, rows + j * 16, Q * 16, start, end, ahead);
        }
        if (before) mix_range<Cache, Q>(a, j0, rows, Q * 16, from, to, ahead);
    }
}

template <class Cache>
inline void attend_all(const Attention& a, int n_queries, int first, int n_positions, const void* after) {
    const int position_bytes = a.head_dim * static_cast<int>(sizeof(typename Cache::Element));
    const int fitting = kAttendTileBytes / position_bytes;
    const int tile = fitting < 128 ? 64 : fitting < kKvChunk ? 128 : kKvChunk;  // chunks are made of whole tiles
    first = first / tile * tile;
    // With the part of the cache that position p lies in.
    const auto part_with = [&](int p) {
        Attention part = a;
        part.kv = chunk_of(a.kv, p, static_cast<size_t>(position_bytes));
        return part;
    };
    const auto groups = [&](auto f) { by_groups<Cache::kQueries>(n_queries, f); };
    groups([&](int j, auto group) { interleave_queries<decltype(group)::value>(a, j); });
    Stream stream{a.kv, static_cast<size_t>(position_bytes), first, n_positions, tile, after};
    stream.step();
    for (int p0 = first; p0 < n_positions; p0 += tile) {
        const int p1 = smaller_of(p0 + tile, n_positions);
        const Attention part = part_with(p0);
        groups([&](int j, auto group) {
            score_tile<Cache, decltype(group)::value>(part, j, p0, p1, j == 0 ? &stream : nullptr);
        });
    }
    groups([&](int j0, auto group) {
        constexpr int Q = decltype(group)::value;
        for (int j = 0; j < Q; j++) exp_row<Q>(a, j0, j);
    });
    for (int p0 = first; p0 < n_positions; p0 += tile) {
        const int p1 = smaller_of(p0 + tile, n_positions);
        const Attention part = part_with(p0);
        groups([&](int j, auto group) {
            mix_tile<Cache, decltype(group)::value>(part, j, p0, p1, j == 0 ? &stream : nullptr);
        });
    }
    for (int j = 0; j < n_queries; j++) {
        const Lanes factor = lanes_all(a.queries[j].inverse);
        by_lanes(a.head_dim, [&](int d, auto part) {
            store(a.queries[j].out + d, lanes_mul(load(a.queries[j].out + d, part), factor), part);
        });
    }
}

void attend(AttendQuery* queries, int n_queries, KvHead kv, int head_dim, float scale, float* scratch, const void* after) {
    int first = queries[0].first, n_positions = 0;
    for (int j = 0; j < n_queries; j++) {
        first = smaller_of(first, queries[j].first);
        n_positions = larger_of(n_positions, queries[j].n_positions);
    }
    const auto q_stride = static_cast<size_t>(round_up(head_dim, 16));
    const auto scores_stride = static_cast<size_t>(round_up(n_positions, 16));
    float* scores = scratch + static_cast<size_t>(n_queries) * q_stride;
    const Attention a{queries, kv, head_dim, scale, scratch, scores, q_stride, scores_stride};
    switch (kv.dtype) {
        case DType::f16: return attend_all<CacheF16>(a, n_queries, first, n_positions, after);
        case DType::q8: return attend_all<CacheQ8>(a, n_queries, first, n_positions, after);
        default: return attend_all<CacheF32>(a, n_queries, first, n_positions, after);
    }
}
