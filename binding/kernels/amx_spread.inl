// How weights of each kind become right tiles, for tile_products.inl. Included inside the anonymous namespace of amx.cpp, after
// avx512_vectors.inl.
//
// One instruction of GFNI makes bytes of bits: each bit of a result is the parity of some bits of a byte, turned or not. Of a
// sign b, the lowest bit is 1 and the others are b: 1 or -1. Of a code c1 c0 (0, 1 or 2), the lowest bit is c0 turned, the others
// are c0 ^ c1 turned: -1, 0 or 1. (A mask and a blend do the same at half the speed: the masks are made on one port.)

inline __m512i line_load(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline void line_store(int8_t* p, __m512i v) { _mm512_store_si512(p, v); }

// A byte of a block is 8 columns of a row, and 64 bytes are the same columns of 64 rows, those of 16 rows in a row being, 4 in
// each quarter, at even or odd bytes of one half (byte_of_row in lookup_signs.inl). So 4 bytes of a row come together by a shuffle
// and two steps of interleaving.
template <int N>
ONEBIT_INLINE void spread_signs(int8_t* to, const uint8_t* from, int half) {
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
    __m512i bytes[4];
    unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA { bytes[i] = _mm512_shuffle_epi8(line_load(from + i * 64), order); });
    const auto rows = [&](int8_t* at, __m512i words01, __m512i words23) ONEBIT_INLINE_LAMBDA {
        const __m512i strips[2] = {_mm512_unpacklo_epi16(words01, words23), _mm512_unpackhi_epi16(words01, words23)};
        unrolled<16>([&](auto i) ONEBIT_INLINE_LAMBDA {
            constexpr int bit = i.value % 8;
            const __m512i pick = _mm512_set1_epi64(static_cast<int64_t>(0x0001010101010101ull << bit));
            line_store(at + i.value / 8 * 1024 + bit * 64, _mm512_gf2p8affine_epi64_epi8(strips[i.value / 8], pick, 1));
        });
    };
    if (N == 4 || half == 0) rows(to, _mm512_unpacklo_epi8(bytes[0], bytes[1]), _mm512_unpacklo_epi8(bytes[2], bytes[3]));
    if (N == 4 || half == 1) rows(to + (N == 4) * 2048, _mm512_unpackhi_epi8(bytes[0], bytes[1]), _mm512_unpackhi_epi8(bytes[2], bytes[3]));
}

ONEBIT_INLINE void spread_codes(int8_t* to, const uint8_t* from) {
    const __m512i codes = line_load(from);
    unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA {
        const __m512i pick = _mm512_set1_epi64(static_cast<int64_t>(0x0103030303030303ull << 2 * i.value));
        line_store(to + i.value * 64, _mm512_gf2p8affine_epi64_epi8(codes, pick, 0xff));
    });
}

// Line b of 32 columns has, of every row, bit b of 4 bytes: columns b, 8 + b, 16 + b, 24 + b.
struct ColumnOrder {
    alignas(64) uint8_t column[64];
};
constexpr ColumnOrder make_column_order() {
    ColumnOrder order{};
    for (int i = 0; i < 64; i++) order.column[i] = static_cast<uint8_t>(i / 32 * 32 + i % 4 * 8 + i % 32 / 4);
    return order;
}
constexpr ColumnOrder kColumnOrder = make_column_order();

inline void order_columns(uint8_t* to, const int8_t* q) {
    _mm512_storeu_si512(to, _mm512_permutexvar_epi8(_mm512_load_si512(kColumnOrder.column), _mm512_loadu_si512(q)));
}

// A transposition of 16 x 16 groups of 4 bytes: rows 4 apart are loaded into the quarters of a vector, and each quarter is then
// transposed by itself.
ONEBIT_INLINE void spread_bytes(int8_t* to, const int8_t* rows, size_t stride, int last) {
    const int8_t* row[16];
    for (int i = 0; i < 16; i++) row[i] = rows + static_cast<size_t>(i < last ? i : last) * stride;
    for (int c = 0; c < 64; c += 16) {
        __m512i v[4];
        unrolled<4>([&](auto i) ONEBIT_INLINE_LAMBDA {
            const auto part = [&](int k) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(row[4 * k + i.value] + c)); };
            v[i] = _mm512_inserti32x4(_mm512_inserti32x4(_mm512_castsi128_si512(part(0)), part(1), 1), part(2), 2);
            v[i] = _mm512_inserti32x4(v[i], part(3), 3);
        });
        const __m512i low01 = _mm512_unpacklo_epi32(v[0], v[1]), high01 = _mm512_unpackhi_epi32(v[0], v[1]);
        const __m512i low23 = _mm512_unpacklo_epi32(v[2], v[3]), high23 = _mm512_unpackhi_epi32(v[2], v[3]);
        int8_t* line = to + c * 16;
        line_store(line, _mm512_unpacklo_epi64(low01, low23));
        line_store(line + 64, _mm512_unpackhi_epi64(low01, low23));
        line_store(line + 128, _mm512_unpacklo_epi64(high01, high23));
        line_store(line + 192, _mm512_unpackhi_epi64(high01, high23));
    }
}
