// Sign matrices times int8 activations by table lookup, written once over Bytes (a vector of 16, 32 or 64 bytes).
// Included inside the set's anonymous namespace, after its *_vectors.inl and lanes_rows.inl.
//
// For every 4 activations a table holds, for each of the 16 patterns of 4 sign bits, u = the sum of those terms
// that make the signed sum smaller than its largest value A = |a0| + |a1| + |a2| + |a3|:
//
//     +-a0 +-a1 +-a2 +-a3 = A - 2 u,   0 <= u <= 508,   u = 32 * high + low,   low 0..31, high 0..15
//
// so a byte shuffle looks up one half of u for a whole vector of rows. Eight low halves (<= 248) and sixteen high
// halves (<= 240) add up in 8 bits before anything has to widen. Everything is exact.
//
// A block is 64 rows. Byte j of all rows (columns 8j .. 8j + 7) lies together, official bytes unchanged:
//
//     block: | byte 0 of 64 rows | byte 1 of 64 rows | ...        byte: high nibble 8j+4..8j+7, low nibble 8j..8j+3
//     table: | low, high of columns 0..3 (16 + 16 bytes) | columns 4..7 | ... | A of each 128 columns (int32) |
//
// The rows inside a group of 64 bytes are in the order that the widening at the end undoes (byte_of_row).
// Columns are padded to 64: there the activations are zero, so that the sign bits do not matter.
//
// Cost of 64 columns in one vector and one token: 32 lookups, 14 + 15 additions, 9 instructions to widen: 70, beside
// the loads. Splitting bytes into nibbles is 24 more, shared by all tokens of a call. An index is loaded once for both its
// lookups: with two loads the load ports set the pace (Zen 4, 256 bits, 16 tokens: 260 Gw/s, with one 295 to 310).
//
// The other way to look up, sums of 6 to 8 columns for 16 to 64 tokens in the first-level cache at an address that the signs
// are, is no faster: loads from random places reach 300 to 400 Gw/s for the additions alone (docs/limits.md).

constexpr int kSignRowBlock = 64;
constexpr int kVectors = 64 / kBytes;      // vectors of rows in a block
constexpr int kTileCols = 512;             // columns whose nibbles are split at a time: 8 KiB of indices
constexpr int kMaxCarryCols = 4096;        // low halves of u: 31 * 4096 / 4 < 2^15
constexpr size_t kTableCache = 192 << 10;  // bytes of tables that one pass over the rows should keep cached
constexpr int kMaxTokens = 16;             // tokens of one pass
// Bytes ahead of the packed signs: into the first-level cache, and long before that into the second. The hardware's
// own prefetchers stop at each page; with both, one thread reads faster than a plain sequential loop (14.3 GB/s
// with avx2 and 15.4 with avx512, where the loop got 12.5).
constexpr size_t kPrefetchNear = 2048, kPrefetchFar = 16384;
// Scales of groups, twice as far ahead as the signs they belong to (7B shape in Q1_0: 34 -> 30 ms a token).
constexpr size_t kScalesAhead = kPrefetchFar / 4;

// Where row r of a block lies in its 64 bytes. Sums of bytes widen to 16 bits as even and odd bytes, then to 32 bits
// within each of the four parts of 128 bits: low and high words. So 16 rows in a row come from the same place of all
// parts, four from each: even low, even high, odd low, odd high. That is the same order for vectors of every size, and
// the results of each are stored whole.
constexpr int byte_of_row(int r) {
    const int quarter = r / 16, part = r / 4 % 4, i = r % 4;
    return part * 16 + (quarter % 2 * 4 + i) * 2 + quarter / 2;
}

struct RowOrder {
    uint8_t byte[64];  // of a row
    uint8_t row[64];   // of a byte
};
constexpr RowOrder make_row_order() {
    RowOrder order{};
    for (int r = 0; r < 64; r++) {
        order.byte[r] = static_cast<uint8_t>(byte_of_row(r));
        order.row[byte_of_row(r)] = static_cast<uint8_t>(r);
    }
    return order;
}
constexpr RowOrder kRowOrder = make_row_order();

size_t sign_block_bytes(int cols) { return static_cast<size_t>(round_up(cols, 64)) * 8; }

// Exchanges the bits of `second` under the mask with those of `first` that lie so many bits above it.
inline void exchange_parts(uint64_t& first, uint64_t& second, int bits, uint64_t mask) {
    const uint64_t change = (first >> bits ^ second) & mask;
    second ^= change;
    first ^= change << bits;
}

// A matrix of 8 x 8 bytes, a row a word, transposed: quarters of 4 x 4 first, then their quarters, then single bytes.
inline void transpose_bytes(uint64_t (&rows)[8]) {
    for (int i = 0; i < 4; i++) exchange_parts(rows[i], rows[i + 4], 32, 0xffffffffu);
    for (int i = 0; i < 4; i++) exchange_parts(rows[i / 2 * 4 + i % 2], rows[i / 2 * 4 + i % 2 + 2], 16, 0x0000ffff0000ffffu);
    for (int i = 0; i < 8; i += 2) exchange_parts(rows[i], rows[i + 1], 8, 0x00ff00ff00ff00ffu);
}

// Byte columns [from, to), a multiple of 8, of 64 rows. Byte by byte that is most of the time of opening a large model.
inline void pack_byte_columns(uint8_t* block, const uint8_t* official, size_t row_bytes, size_t from, size_t to) {
    for (int at = 0; at < 64; at += 8) {
        for (size_t j = from; j < to; j += 8) {
            uint64_t bytes[8];
            for (int i = 0; i < 8; i++) memcpy(&bytes[i], official + kRowOrder.row[at + i] * row_bytes + j, 8);
            transpose_bytes(bytes);
            for (size_t i = 0; i < 8; i++) memcpy(block + (j + i) * 64 + static_cast<size_t>(at), &bytes[i], 8);
        }
    }
}

void sign_pack(uint8_t* block, const uint8_t* official, int n_rows, int cols) {
    const size_t row_bytes = static_cast<size_t>(cols) / 8;
    const size_t in_words = n_rows == kSignRowBlock ? row_bytes / 8 * 8 : 0;
    // as many as are a cache line of each row, while their 4 KiB of the block stay in the first-level cache
    for (size_t j = 0; j < in_words; j += 64) pack_byte_columns(block, official, row_bytes, j, j + 64 < in_words ? j + 64 : in_words);
    memset(block + in_words * 64, 0, sign_block_bytes(cols) - in_words * 64);
    for (int r = 0; r < n_rows; r++, official += row_bytes) {
        uint8_t* to = block + kRowOrder.byte[r];
        for (size_t j = in_words; j < row_bytes; j++) to[j * 64] = official[j];
    }
}

void sign_unpack_row(uint8_t* official, const uint8_t* block, int row, int cols) {
    const uint8_t* from = block + kRowOrder.byte[row];
    for (size_t j = 0; j < static_cast<size_t>(cols) / 8; j++) official[j] = from[j * 64];
}

inline size_t lookup_bytes(int cols) { return static_cast<size_t>(round_up(cols, 64)) * 8; }

size_t table_bytes(int cols) {
    return static_cast<size_t>(round_up(static_cast<int64_t>(lookup_bytes(cols)) + round_up(cols, 128) / 32, 64));
}

// The sum of |q| of each 128 columns, as int32.
inline void store_absolute(uint8_t* absolute, const int8_t* q, int padded_cols) {
    for (int c = 0; c < padded_cols; c += 128, absolute += 4) {
        int32_t sum = 0;
        const int end = c + 128 < padded_cols ? c + 128 : padded_cols;
        for (int i = c; i < end; i++) sum += q[i] < 0 ? -q[i] : q[i];
        memcpy(absolute, &sum, 4);
    }
}

void table_build(uint8_t* table, const int8_t* q, int cols) {
    const int padded_cols = static_cast<int>(round_up(cols, 64));
    for (int c = 0; c < padded_cols; c += 32) tables_of_32(table + c * 8, q + c);
    store_absolute(table + lookup_bytes(cols), q, padded_cols);
}

// Sums of low and high halves of u. Adding whole 16-bit words gives even + 256 * odd bytes modulo 2^16; with the odd
// sums apart, the even ones follow. Three instructions a vector instead of four.
struct Sums {
    Bytes low, low_odd, high, high_odd;
};

inline void clear(Sums (&sums)[kVectors]) {
    for (Sums& s : sums) s = {bytes_zero(), bytes_zero(), bytes_zero(), bytes_zero()};
}

// The indices of one byte column for all vectors of a block.
struct Nibbles {
    Bytes low[kVectors], high[kVectors];
};

// Signs as they lie in a block.
struct PackedSigns {
    const uint8_t* p;
    Nibbles nibbles(size_t j) const {
        Nibbles n;
        for (int v = 0; v < kVectors; v++) {
            Bytes b = bytes_load(p + j * 64 + v * kBytes);
            if (v == 0) prefetch_near_with(b, p + j * 64 + kPrefetchNear);
            if (v == kVectors - 1) prefetch_far_with(b, p + j * 64 + kPrefetchFar);
            n.low[v] = low_nibbles(b);
            n.high[v] = high_nibbles(b);
        }
        return n;
    }
};

// Signs split into nibbles before: 64 low ones, 64 high ones.
struct SplitSigns {
    const uint8_t* p;
    Nibbles nibbles(size_t j) const {
        Nibbles n;
        for (int v = 0; v < kVectors; v++) {
            n.low[v] = bytes_load(p + j * 128 + v * kBytes);
            n.high[v] = bytes_load(p + j * 128 + 64 + v * kBytes);
        }
        return n;
    }
};

ONEBIT_INLINE void add_four_columns(Bytes (&low)[kVectors], Bytes (&high)[kVectors], const Bytes (&index)[kVectors],
                                    const uint8_t* table) {
    const Bytes low_table = table_load(table), high_table = table_load(table + 16);
    unrolled<kVectors>([&](auto v) ONEBIT_INLINE_LAMBDA {
        Bytes signs = index[v];
        add_now(signs);
        Bytes low_found = lookup(low_table, signs), high_found = lookup(high_table, signs);
        pair_now(low_found, high_found);
        low[v] = bytes_add(low[v], low_found);
        high[v] = bytes_add(high[v], high_found);
        pair_now(low[v], high[v]);
    });
}

template <class Signs>
inline void add_byte(Bytes (&low)[kVectors], Bytes (&high)[kVectors], Signs signs, size_t j, const uint8_t* table) {
    const Nibbles n = signs.nibbles(j);
    add_four_columns(low, high, n.low, table);
    add_four_columns(low, high, n.high, table + 32);
}

// 32 columns of a block: bytes j .. j + 3. Written out because compilers do not unroll the loop on their own.
template <class Signs>
inline void add_four_bytes(Sums (&sums)[kVectors], Bytes (&high)[kVectors], Signs signs, size_t j,
                           const uint8_t* table) {
    Bytes low[kVectors];
    for (Bytes& l : low) l = bytes_zero();
    add_byte(low, high, signs, j, table);
    add_byte(low, high, signs, j + 1, table + 64);
    add_byte(low, high, signs, j + 2, table + 128);
    add_byte(low, high, signs, j + 3, table + 192);
    for (int v = 0; v < kVectors; v++) {
        sums[v].low = words_add(sums[v].low, low[v]);
        sums[v].low_odd = words_add_odd(sums[v].low_odd, low[v]);
    }
}

// 64 columns of a block: bytes j .. j + 7.
template <class Signs>
inline void add_columns(Sums (&sums)[kVectors], Signs signs, size_t j, const uint8_t* table) {
    Bytes high[kVectors];
    for (Bytes& h : high) h = bytes_zero();
    add_four_bytes(sums, high, signs, j, table);
    add_four_bytes(sums, high, signs, j + 4, table + 256);
    for (int v = 0; v < kVectors; v++) {
        sums[v].high = words_add(sums[v].high, high[v]);
        sums[v].high_odd = words_add_odd(sums[v].high_odd, high[v]);
    }
}

inline void split_signs(uint8_t* indices, const uint8_t* packed, int n_bytes) {
    for (int j = 0; j < n_bytes; j++) {
        const Nibbles n = PackedSigns{packed}.nibbles(static_cast<size_t>(j));
        for (int v = 0; v < kVectors; v++) {
            bytes_store(indices + j * 128 + v * kBytes, n.low[v]);
            bytes_store(indices + j * 128 + 64 + v * kBytes, n.high[v]);
        }
    }
}

// out[r] (+)= absolute - 2 u for the 64 rows of a block.
inline void store_sums(int32_t* out, const Sums (&sums)[kVectors], int32_t absolute, bool add) {
    const Ints a = ints_all(absolute);
    for (int v = 0; v < kVectors; v++) {
        Ints u[4];
        widen_sums(u, sums[v].low, sums[v].low_odd, sums[v].high, sums[v].high_odd);
        for (int k = 0; k < 4; k++) {
            int32_t* rows = out + k * 16 + v * (kBytes / 4);
            const Ints s = ints_sub(a, ints_add(u[k], u[k]));
            ints_store(rows, add ? ints_add(s, ints_load(rows)) : s);
        }
    }
}

// The sum of |a| over columns [c, end), c being a multiple of 128.
inline int32_t absolute_sum(const uint8_t* absolute, int c, int end) {
    int32_t sum = 0;
    for (int g = c / 128; g * 128 < end; g++) {
        int32_t part;
        memcpy(&part, absolute + g * 4, 4);
        sum += part;
    }
    return sum;
}

// One token: the nibbles are used once, so they stay in registers.
inline void sign_one_token(int32_t* out, const uint8_t* block, int cols, const uint8_t* table, bool add) {
    const int end = static_cast<int>(round_up(cols, 64));
    for (int c0 = 0; c0 < end; c0 += kMaxCarryCols) {
        const int c1 = c0 + kMaxCarryCols < end ? c0 + kMaxCarryCols : end;
        Sums sums[kVectors];
        clear(sums);
        for (int c = c0; c < c1; c += 64) {
            add_columns(sums, PackedSigns{block}, static_cast<size_t>(c / 8), table + c * 8);
        }
        store_sums(out, sums, absolute_sum(table + lookup_bytes(cols), c0, c1), add || c0 > 0);
    }
}

// Several tokens, columns [c0, c1) of one block.
inline void sign_tokens(int32_t* out, size_t out_stride, const uint8_t* block, int c0, int c1, int cols,
                        const uint8_t* tables, size_t table_stride, int n_tokens, bool add) {
    alignas(64) uint8_t indices[kTileCols * 16];
    for (int c = c0; c < c1; c += kTileCols) {
        const int end = c + kTileCols < c1 ? c + kTileCols : c1;
        split_signs(indices, block + c * 8, (end - c) / 8);
        for (int t = 0; t < n_tokens; t++) {
            const uint8_t* table = tables + static_cast<size_t>(t) * table_stride;
            Sums sums[kVectors];
            clear(sums);
            for (int i = c; i < end; i += 64)
                add_columns(sums, SplitSigns{indices}, static_cast<size_t>((i - c) / 8), table + i * 8);
            store_sums(out + static_cast<size_t>(t) * out_stride, sums,
                       absolute_sum(table + lookup_bytes(cols), c, end), add || c > 0);
        }
    }
}

// Columns of one pass: as many whole tiles as keep the tables of n_tokens in the cache.
inline int pass_columns(int cols, int n_tokens) {
    const int fitting = static_cast<int>(kTableCache / 8) / n_tokens / kTileCols * kTileCols;
    const int end = static_cast<int>(round_up(cols, 64));
    return fitting < kTileCols ? kTileCols : fitting < end ? fitting : end;
}

void sign_i8(int32_t* out, size_t out_stride, SignBlocks blocks, int cols, const uint8_t* tables, size_t table_stride,
             int n_tokens, bool add) {
    const int end = static_cast<int>(round_up(cols, 64));
    for (int t0 = 0; t0 < n_tokens; t0 += kMaxTokens) {
        const int count = n_tokens - t0 < kMaxTokens ? n_tokens - t0 : kMaxTokens;
        const uint8_t* tokens = tables + static_cast<size_t>(t0) * table_stride;
        int32_t* out_tokens = out + static_cast<size_t>(t0) * out_stride;
        const int step = count == 1 ? end : pass_columns(cols, count);
        for (int c0 = 0; c0 < end; c0 += step) {
            const int c1 = c0 + step < end ? c0 + step : end;
            for (int b = 0; b < blocks.count; b++) {
                const uint8_t* block = blocks.bits + static_cast<size_t>(b) * blocks.stride;
                if (count == 1) {
                    sign_one_token(out_tokens + b * 64, block, cols, tokens, add);
                } else {
                    sign_tokens(out_tokens + b * 64, out_stride, block, c0, c1, cols, tokens, table_stride, count, add);
                }
            }
        }
    }
}

// ---- one scale per row and 128 columns ---------------------------------------------------------------------

inline void store_group(float* out, const Sums (&sums)[kVectors], int32_t absolute, const float* d, bool add) {
    const Ints a = ints_all(absolute);
    for (int v = 0; v < kVectors; v++) {
        Ints u[4];
        widen_sums(u, sums[v].low, sums[v].low_odd, sums[v].high, sums[v].high_odd);
        for (int k = 0; k < 4; k++) {
            const int row = k * 16 + v * (kBytes / 4);
            const Floats s = floats_from_ints(ints_sub(a, ints_add(u[k], u[k])));
            floats_store(out + row, floats_fma(floats_load(d + row), s, add ? floats_load(out + row) : floats_zero()));
        }
    }
}

// Groups [g0, g1) of one block for several tokens; at most kTileCols columns.
template <class Signs>
inline void group_tokens(float* out, size_t out_stride, Signs signs, const uint16_t* scales, int g0, int g1, int cols,
                         const uint8_t* tables, size_t table_stride, int n_tokens, bool add) {
    alignas(64) float d[kTileCols / 128][64];
    for (int g = g0; g < g1; g++) {
        const uint16_t* halves = scales + g * 64;  // 128 bytes
        const uint8_t* later = reinterpret_cast<const uint8_t*>(halves) + kScalesAhead;
        prefetch_far(later);
        prefetch_far(later + 64);
        for (int r = 0; r < 64; r += kBytes / 4) floats_store(d[g - g0] + r, floats_from_f16(halves + r));
    }
    for (int t = 0; t < n_tokens; t++) {
        const uint8_t* table = tables + static_cast<size_t>(t) * table_stride;
        for (int g = g0; g < g1; g++) {
            Sums sums[kVectors];
            clear(sums);
            const size_t byte = static_cast<size_t>(g - g0) * 16;
            add_columns(sums, signs, byte, table + g * 1024);
            add_columns(sums, signs, byte + 8, table + g * 1024 + 512);
            int32_t absolute;
            memcpy(&absolute, table + lookup_bytes(cols) + g * 4, 4);
            store_group(out + static_cast<size_t>(t) * out_stride, sums, absolute, d[g - g0], add || g > 0);
        }
    }
}

inline void grouped_block(float* out, size_t out_stride, const uint8_t* block, const uint16_t* scales, int g0, int g1,
                          int cols, const uint8_t* tables, size_t table_stride, int n_tokens, bool add) {
    alignas(64) uint8_t indices[kTileCols * 16];
    for (int g = g0; g < g1; g += kTileCols / 128) {
        const int end = g + kTileCols / 128 < g1 ? g + kTileCols / 128 : g1;
        const uint8_t* packed = block + g * 1024;
        if (n_tokens == 1) {
            group_tokens(out, out_stride, PackedSigns{packed}, scales, g, end, cols, tables, table_stride, 1, add);
        } else {
            split_signs(indices, packed, (end - g) * 16);
            group_tokens(out, out_stride, SplitSigns{indices}, scales, g, end, cols, tables, table_stride, n_tokens, add);
        }
    }
}

// How many groups of columns have scales in one block.
inline size_t groups_of(SignBlocks blocks) { return blocks.stride / sign_block_bytes(128); }

void grouped_i8(float* out, size_t out_stride, SignBlocks blocks, const uint16_t* scales, int cols, const uint8_t* tables,
                size_t table_stride, int n_tokens, bool add) {
    for (int t0 = 0; t0 < n_tokens; t0 += kMaxTokens) {
        const int count = n_tokens - t0 < kMaxTokens ? n_tokens - t0 : kMaxTokens;
        const uint8_t* tokens = tables + static_cast<size_t>(t0) * table_stride;
        const int step = pass_columns(cols, count) / 128;
        for (int g0 = 0; g0 < cols / 128; g0 += step) {
            const int g1 = g0 + step < cols / 128 ? g0 + step : cols / 128;
            for (int b = 0; b < blocks.count; b++) {
                const size_t block = static_cast<size_t>(b);
                grouped_block(out + static_cast<size_t>(t0) * out_stride + block * 64, out_stride,
                              blocks.bits + block * blocks.stride, scales + block * 64 * groups_of(blocks), g0, g1, cols,
                              tokens, table_stride, count, add);
            }
        }
    }
}
