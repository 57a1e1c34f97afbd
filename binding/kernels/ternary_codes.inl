// Ternary matrices times int8 activations, written once over the set's products of bytes. Included inside the set's anonymous
// namespace, after its *_vectors.inl, with these beside it:
//
//     TernarySum, ternary_dot(sum, codes, a)  adds the products of unsigned codes (0, 1, 2, times kTernaryFree's powers of 4)
//                                             and activations, four neighbouring bytes of a row together
//     ternary_total(sum)                      as Ints, one a row
//     kTernaryFree                            positions of a byte whose codes need not be shifted down before they multiply
//     kTernaryOnce, kTernaryMany              columns that a sum holds with one token and with several
//     kTernaryStrips, kTernaryTokens          vectors of rows times tokens at a time
//
// Codes are the weights + 1, so a sum is too large by the sum of its activations, which is subtracted per group: the tokens
// bring it (sum_parts). A vector holds kStripRows rows of a block: a strip. There is no adding across a vector, and no table
// to be made.
//
// One token: 256 codes are a load, 4 masks and 4 products with AVX-512 VNNI, because codes in upper bits multiply as they
// are: sums of each position are kept apart, and shifted at the end of a group.

constexpr int kStripRows = kBytes / 4;
constexpr int kBlockStrips = kTernaryRows / kStripRows;
constexpr int kTernaryTile = 512;  // columns that several tokens meet at a time: 64 tokens of them are 32 KiB

void sum_parts(int32_t* parts, const int8_t* q, int cols) {
    const Bytes ones = bytes_all(1);
    for (int c = 0; c < cols; c += 64) {
        TernarySum sum = ternary_zero();
        for (int i = 0; i < 64; i += kBytes) sum = ternary_dot(sum, ones, bytes_load(reinterpret_cast<const uint8_t*>(q + c + i)));
        int32_t lanes[kBytes / 4], total = 0;
        ints_store(lanes, ternary_total(sum));
        for (const int32_t lane : lanes) total += lane;
        *parts++ = total;
    }
}

// The sum of a token's activations in columns [c, end), both multiples of 64 or the end of the row.
inline int32_t part_sum(const int32_t* parts, int c, int end) {
    int32_t sum = 0;
    for (int i = c / 64; i * 64 < end; i++) sum += parts[i];
    return sum;
}

// Strips of rows that are multiplied together, from column 0 on.
template <int V>
struct Strips {
    const uint8_t* at[V];
};

inline const uint8_t* strip_at(const TernaryBlocks& blocks, int strip) {
    const size_t block_bytes = static_cast<size_t>(round_up(blocks.cols, 16)) / 4 * kTernaryRows;
    return blocks.codes + static_cast<size_t>(strip / kBlockStrips) * block_bytes +
           static_cast<size_t>(strip % kBlockStrips) * kBytes;
}

inline const uint16_t* strip_scales(const TernaryBlocks& blocks, int strip, int group) {
    const size_t groups = static_cast<size_t>(blocks.cols / blocks.group);
    return blocks.scales + (static_cast<size_t>(strip / kBlockStrips) * groups + static_cast<size_t>(group)) * kTernaryRows +
           strip % kBlockStrips * kStripRows;
}

// Codes of position J, times 4 ^ (J % Free).
template <int J, int Free>
ONEBIT_INLINE Bytes codes_of(Bytes packed) {
    constexpr int kept = J % Free;
    return bytes_and(bytes_shift_right<2 * (J - kept)>(packed), bytes_all(static_cast<int8_t>(3 << 2 * kept)));
}

// ---- one token -----------------------------------------------------------------------------------------------

// Adds columns [c, end) of a block, at most kTernaryOnce.
ONEBIT_INLINE void add_once(Ints (&sums)[kBlockStrips], const uint8_t* block, const int8_t* q, int c, int end) {
    TernarySum parts[kBlockStrips][kTernaryFree];
    unrolled<kBlockStrips>([&](auto v) ONEBIT_INLINE_LAMBDA {
        unrolled<kTernaryFree>([&](auto f) ONEBIT_INLINE_LAMBDA { parts[v][f] = ternary_zero(); });
    });
    for (; c < end; c += 16) {
        const uint8_t* step = block + c * 4;
        prefetch_near(step + kPrefetchNear);
        prefetch_far(step + kPrefetchFar);
        Bytes packed[kBlockStrips];
        unrolled<kBlockStrips>([&](auto v) ONEBIT_INLINE_LAMBDA { packed[v] = bytes_load(step + v * kBytes); });
        unrolled<4>([&](auto j) ONEBIT_INLINE_LAMBDA {
            constexpr int free = decltype(j)::value % kTernaryFree;
            const Bytes a = bytes_of_four(q + c + 4 * j);
            unrolled<kBlockStrips>([&](auto v) ONEBIT_INLINE_LAMBDA {
                parts[v][free] = ternary_dot(parts[v][free], codes_of<decltype(j)::value, kTernaryFree>(packed[v]), a);
            });
        });
    }
    unrolled<kBlockStrips>([&](auto v) ONEBIT_INLINE_LAMBDA {
        unrolled<kTernaryFree>([&](auto f) ONEBIT_INLINE_LAMBDA {
            sums[v] = ints_add(sums[v], ints_shift_right<2 * decltype(f)::value>(ternary_total(parts[v][f])));
        });
    });
}

// Columns [c, end) of a block.
ONEBIT_INLINE void sum_once(Ints (&sums)[kBlockStrips], const uint8_t* block, const int8_t* q, int c, int end) {
    for (Ints& sum : sums) sum = ints_zero();
    for (; c < end; c += kTernaryOnce) add_once(sums, block, q, c, c + kTernaryOnce < end ? c + kTernaryOnce : end);
}

inline void ternary_once(int32_t* out, const TernaryBlocks& blocks, const RoundedTokens& token) {
    const Ints offset = ints_all(part_sum(token.parts, 0, blocks.cols));
    for (int b = 0; b < blocks.count; b++, out += kTernaryRows) {
        Ints sums[kBlockStrips];
        sum_once(sums, strip_at(blocks, b * kBlockStrips), token.q, 0, blocks.cols);
        for (int v = 0; v < kBlockStrips; v++) ints_store(out + v * kStripRows, ints_sub(sums[v], offset));
    }
}

inline void ternary_grouped_once(float* out, const TernaryBlocks& blocks, const RoundedTokens& token) {
    for (int b = 0; b < blocks.count; b++, out += kTernaryRows) {
        const uint8_t* block = strip_at(blocks, b * kBlockStrips);
        Floats acc[kBlockStrips];
        for (Floats& a : acc) a = floats_zero();
        for (int g = 0; g < blocks.cols / blocks.group; g++) {
            const int c = g * blocks.group, end = c + blocks.group;
            const uint16_t* d = strip_scales(blocks, b * kBlockStrips, g);
            prefetch_far(reinterpret_cast<const uint8_t*>(d) + kScalesAhead);
            Ints sums[kBlockStrips];
            sum_once(sums, block, token.q, c, end);
            const Ints offset = ints_all(part_sum(token.parts, c, end));
            for (int v = 0; v < kBlockStrips; v++) {
                const Floats s = floats_from_ints(ints_sub(sums[v], offset));
                acc[v] = floats_fma(floats_from_f16(d + v * kStripRows), s, acc[v]);
            }
        }
        for (int v = 0; v < kBlockStrips; v++) floats_store(out + v * kStripRows, acc[v]);
    }
}

// ---- several tokens --------------------------------------------------------------------------------------------

// Adds columns [c, end), at most kTernaryMany, of V strips and T tokens.
template <int V, int T>
ONEBIT_INLINE void add_many(Ints (&sums)[T][V], const Strips<V>& strips, const int8_t* q, size_t q_stride, int c, int end) {
    TernarySum parts[T][V];
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { parts[t][v] = ternary_zero(); });
    });
    for (; c < end; c += 16) {
        Bytes packed[V];
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { packed[v] = bytes_load(strips.at[v] + c * 4); });
        unrolled<4>([&](auto j) ONEBIT_INLINE_LAMBDA {
            Bytes codes[V];
            unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { codes[v] = codes_of<decltype(j)::value, 1>(packed[v]); });
            unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
                const Bytes a = bytes_of_four(q + static_cast<size_t>(t) * q_stride + c + 4 * j);
                unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { parts[t][v] = ternary_dot(parts[t][v], codes[v], a); });
            });
        });
    }
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { sums[t][v] = ints_add(sums[t][v], ternary_total(parts[t][v])); });
    });
}

// Columns [c, end) less the sums of the activations there, handed on as finish(token, strip, sums).
template <int V, int T, class F>
ONEBIT_INLINE void sum_many(const Strips<V>& strips, const RoundedTokens& tokens, int first, int c, int end, const F& finish) {
    Ints sums[T][V];
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        const int32_t* parts = tokens.parts + static_cast<size_t>(first + t) * tokens.parts_stride;
        const Ints offset = ints_all(-part_sum(parts, c, end));
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { sums[t][v] = offset; });
    });
    const int8_t* q = tokens.q + static_cast<size_t>(first) * tokens.q_stride;
    for (; c < end; c += kTernaryMany) {
        add_many<V, T>(sums, strips, q, tokens.q_stride, c, c + kTernaryMany < end ? c + kTernaryMany : end);
    }
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { finish(first + t, v, sums[t][v]); });
    });
}

// tile(Strips<V>, first strip, Constant<T>, first token, c0, c1) for all strips and tokens, some columns after the other.
template <class F>
inline void by_ternary_tiles(const TernaryBlocks& blocks, int n_tokens, const F& tile) {
    for (int c0 = 0; c0 < blocks.cols; c0 += kTernaryTile) {
        const int c1 = c0 + kTernaryTile < blocks.cols ? c0 + kTernaryTile : blocks.cols;
        by_groups<kTernaryStrips>(blocks.count * kBlockStrips, [&](int strip, auto together) {
            constexpr int V = decltype(together)::value;
            Strips<V> strips;
            for (int v = 0; v < V; v++) strips.at[v] = strip_at(blocks, strip + v);
            by_groups<kTernaryTokens>(n_tokens, [&](int t, auto group) { tile(strips, strip, group, t, c0, c1); });
        });
    }
}

void ternary(int32_t* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens) {
    if (tokens.count == 1) return ternary_once(out, blocks, tokens);
    by_ternary_tiles(blocks, tokens.count, [&](auto strips, int strip, auto group, int t, int c0, int c1) {
        constexpr int V = sizeof strips.at / sizeof strips.at[0], T = decltype(group)::value;
        sum_many<V, T>(strips, tokens, t, c0, c1, [&](int token, int v, Ints sums) ONEBIT_INLINE_LAMBDA {
            int32_t* to = out + static_cast<size_t>(token) * out_stride + (strip + v) * kStripRows;
            ints_store(to, c0 > 0 ? ints_add(sums, ints_load(to)) : sums);
        });
    });
}

void ternary_grouped(float* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens) {
    if (tokens.count == 1) return ternary_grouped_once(out, blocks, tokens);
    by_ternary_tiles(blocks, tokens.count, [&](auto strips, int strip, auto group, int t, int c0, int c1) {
        constexpr int V = sizeof strips.at / sizeof strips.at[0], T = decltype(group)::value;
        for (int c = c0; c < c1; c += blocks.group) {
            Floats d[V];
            unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA {
                d[v] = floats_from_f16(strip_scales(blocks, strip + v, c / blocks.group));
            });
            sum_many<V, T>(strips, tokens, t, c, c + blocks.group, [&](int token, int v, Ints sums) ONEBIT_INLINE_LAMBDA {
                float* to = out + static_cast<size_t>(token) * out_stride + (strip + v) * kStripRows;
                floats_store(to, floats_fma(d[v], floats_from_ints(sums), c > 0 ? floats_load(to) : floats_zero()));
            });
        }
    });
}
