// Ternary matrices times int8 activations, written once over the set's products of bytes. Included inside the set's anonymous
// namespace, after its *_vectors.inl, with these beside it:
//
//     TernarySum, ternary_dot(sum, codes, a)  adds the products of unsigned codes (0, 1, 2, times kTernaryFree's powers of 4)
//                                             and activations, four neighbouring bytes of a row together
//     ternary_total(sum)                      as Ints, one a row
//     ternary_begin(offset), ternary_end(sum, offset)  what a sum of several tokens' products begins with, and its total with the
//                                             offset: sums of 32 bits begin with it
//     kTernaryFree                            positions of a byte whose codes need not be shifted down before they multiply
//     kTernaryOnce, kTernaryMany              columns that a sum holds with one token and with several; kWholeRows: all
//     kTernaryStrips, kTernaryTokens          vectors of rows times tokens at a time
//
// Codes are the weights + 1, so a sum is too large by the sum of its activations, which the tokens bring per group with its
// sign turned (code_offsets). A vector holds kStripRows rows of a block: a strip. There is no adding across a vector, and no table
// to be made.
//
// One token: 256 codes are a load, 4 masks and 4 products with AVX-512 VNNI, because codes in upper bits multiply as they
// are: sums of each position are kept apart, and shifted at the end of a group.

constexpr int kStripRows = kBytes / 4;
constexpr int kBlockStrips = kTernaryRows / kStripRows;
// Several tokens meet as many columns at a time as keep their activations in the first-level cache, this many at least.
constexpr int kTernaryTile = 512;
constexpr int kTernaryTileBytes = 32 << 10;

void code_offsets(int32_t* offsets, const int8_t* q, int cols, int group) {
    const Bytes ones = bytes_all(1);
    const int width = group > 0 ? group : static_cast<int>(round_up(cols, 64));
    for (int c = 0; c < cols; c += width) {
        Ints all = ints_zero();
        for (int i = c; i < c + width; i += 64) {
            TernarySum sum = ternary_zero();
            for (int k = 0; k < 64; k += kBytes) sum = ternary_dot(sum, ones, bytes_load(reinterpret_cast<const uint8_t*>(q + i + k)));
            all = ints_add(all, ternary_total(sum));
        }
        int32_t lanes[kBytes / 4], total = 0;
        ints_store(lanes, all);
        for (const int32_t lane : lanes) total -= lane;
        *offsets++ = total;
    }
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
    const Ints offset = ints_all(*token.offsets);
    for (int b = 0; b < blocks.count; b++, out += kTernaryRows) {
        Ints sums[kBlockStrips];
        sum_once(sums, strip_at(blocks, b * kBlockStrips), token.q, 0, blocks.cols);
        for (int v = 0; v < kBlockStrips; v++) ints_store(out + v * kStripRows, ints_add(sums[v], offset));
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
            const Ints offset = ints_all(token.offsets[g]);
            for (int v = 0; v < kBlockStrips; v++) {
                const Floats s = floats_from_ints(ints_add(sums[v], offset));
                acc[v] = floats_fma(floats_from_f16(d + v * kStripRows), s, acc[v]);
            }
        }
        for (int v = 0; v < kBlockStrips; v++) floats_store(out + v * kStripRows, acc[v]);
    }
}

// ---- several tokens --------------------------------------------------------------------------------------------

// Adds columns [c, end), at most kTernaryMany, of V strips and T tokens.
template <int V, int T>
ONEBIT_INLINE void add_many(TernarySum (&sums)[T][V], const Strips<V>& strips, const int8_t* q, size_t q_stride, int c, int end) {
    for (; c < end; c += 16) {
        Bytes packed[V];
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA {
            packed[v] = bytes_load(strips.at[v] + c * 4);
        });
        unrolled<4>([&](auto j) ONEBIT_INLINE_LAMBDA {
            Bytes codes[V];
            unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { codes[v] = codes_of<decltype(j)::value, 1>(packed[v]); });
            unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
                const Bytes a = bytes_of_four(q + static_cast<size_t>(t) * q_stride + c + 4 * j);
                unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { sums[t][v] = ternary_dot(sums[t][v], codes[v], a); });
            });
        });
    }
}

// Of the tokens that go together, one each.
struct Offsets {
    const int32_t* first;
    size_t stride;
    int32_t of(int token) const { return first[static_cast<size_t>(token) * stride]; }
};

inline Offsets offsets_at(const RoundedTokens& tokens, int token, int group) {
    return {tokens.offsets + static_cast<size_t>(token) * tokens.offset_stride + group, tokens.offset_stride};
}

// Columns [c, end), at most kTernaryMany, of T tokens from number `first` on, handed on as finish(token, strip, sums).
template <int V, int T, class F>
ONEBIT_INLINE void sum_many(const Strips<V>& strips, const RoundedTokens& tokens, int first, Offsets offsets, int c, int end,
                            const F& finish) {
    TernarySum sums[T][V];
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        const TernarySum begin = ternary_begin(offsets.of(t));
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { sums[t][v] = begin; });
    });
    add_many<V, T>(sums, strips, tokens.q + static_cast<size_t>(first) * tokens.q_stride, tokens.q_stride, c, end);
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
        unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA { finish(first + t, v, ternary_end(sums[t][v], offsets.of(t))); });
    });
}

// Fetches columns [c, end) of the strips that come next: the hardware does not see a tile coming that begins in the middle of
// a row.
template <int V>
inline void fetch_next(const Strips<V>& strips, int cols, int c, int end) {
    const size_t block_bytes = static_cast<size_t>(round_up(cols, 16)) / 4 * kTernaryRows;
    const size_t ahead = static_cast<size_t>((V + kBlockStrips - 1) / kBlockStrips) * block_bytes;
    constexpr int kLine = 64 / kBytes;  // strips of a line
    for (int v = 0; v < V; v += kLine) {
        for (int i = c; i < end; i += 16) prefetch_far(strips.at[v] + i * 4 + ahead);
    }
}

// tile(Strips<V>, first strip, Constant<T>, first token, c0, c1) for all strips and tokens, some columns after the other.
template <class F>
inline void by_ternary_tiles(const TernaryBlocks& blocks, int n_tokens, const F& tile) {
    const int fitting = kTernaryTileBytes / n_tokens / kTernaryTile * kTernaryTile;
    const int step = fitting < kTernaryTile ? kTernaryTile : fitting;
    for (int c0 = 0; c0 < blocks.cols; c0 += step) {
        const int c1 = c0 + step < blocks.cols ? c0 + step : blocks.cols;
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
        for (int c = c0; c < c1; c += kTernaryMany) {
            const int end = c + kTernaryMany < c1 ? c + kTernaryMany : c1;
            if (t == 0) fetch_next(strips, blocks.cols, c, end);
            // The whole row has one offset, which its first columns bring.
            static constexpr int32_t kNone[kTernaryTokens] = {};
            const Offsets offsets = c > 0 ? Offsets{kNone, 1} : offsets_at(tokens, t, 0);
            sum_many<V, T>(strips, tokens, t, offsets, c, end, [&](int token, int v, Ints sums) ONEBIT_INLINE_LAMBDA {
                int32_t* to = out + static_cast<size_t>(token) * out_stride + (strip + v) * kStripRows;
                ints_store(to, c > 0 ? ints_add(sums, ints_load(to)) : sums);
            });
        }
    });
}

void ternary_grouped(float* out, size_t out_stride, TernaryBlocks blocks, RoundedTokens tokens) {
    if (tokens.count == 1) return ternary_grouped_once(out, blocks, tokens);
    by_ternary_tiles(blocks, tokens.count, [&](auto strips, int strip, auto group, int t, int c0, int c1) {
        constexpr int V = sizeof strips.at / sizeof strips.at[0], T = decltype(group)::value;
        for (int c = c0; c < c1; c += blocks.group) {
            if (t == 0) fetch_next(strips, blocks.cols, c, c + blocks.group);
            Floats d[V];
            unrolled<V>([&](auto v) ONEBIT_INLINE_LAMBDA {
                d[v] = floats_from_f16(strip_scales(blocks, strip + v, c / blocks.group));
            });
            sum_many<V, T>(strips, tokens, t, offsets_at(tokens, t, c / blocks.group), c, c + blocks.group, [&](int token, int v, Ints sums) ONEBIT_INLINE_LAMBDA {
                float* to = out + static_cast<size_t>(token) * out_stride + (strip + v) * kStripRows;
                floats_store(to, floats_fma(d[v], floats_from_ints(sums), c > 0 ? floats_load(to) : floats_zero()));
            });
        }
    });
}
