// The lookup table of four activations (see lookup_signs.inl), and the checksum instruction: the same on all x86 sets.

// The eight tables of 32 activations, 16 low and 16 high halves of u each. Entry e belongs to the sign bits e:
// u(e) = the sum of |a_i| of the negative a_i + the sum of a_i over the bits of e. vpmaddubsw adds two picked
// activations for 16 entries at once.
inline void tables_of_32(uint8_t* table, const int8_t* q) {
    const __m256i ones = _mm256_set1_epi8(1), zero = _mm256_setzero_si256();
    const __m256i first_pair = _mm256_set1_epi64x(0x0101010000010000);  // words 0, 1, 256, 257: bits 0 and 1 of e
    const __m256i second_pair = _mm256_setr_epi64x(0, 0x0001000100010001, 0x0100010001000100, 0x0101010101010101);
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    const __m256i negative = _mm256_max_epi8(_mm256_sub_epi8(zero, a), zero);
    const __m256i of_four = _mm256_madd_epi16(_mm256_maddubs_epi16(negative, ones), _mm256_set1_epi16(1));
    alignas(32) int32_t starts[8];
    _mm256_store_si256(reinterpret_cast<__m256i*>(starts), of_four);
    for (int i = 0; i < 8; i++, table += 32) {
        int16_t pairs[2];
        memcpy(pairs, q + i * 4, 4);
        __m256i u = _mm256_set1_epi16(static_cast<int16_t>(starts[i]));
        u = _mm256_add_epi16(u, _mm256_maddubs_epi16(first_pair, _mm256_set1_epi16(pairs[0])));
        u = _mm256_add_epi16(u, _mm256_maddubs_epi16(second_pair, _mm256_set1_epi16(pairs[1])));
        const __m256i low = _mm256_and_si256(u, _mm256_set1_epi16(31)), high = _mm256_srli_epi16(u, 5);
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xd8);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(table), packed);
    }
}

// The eight tables of 32 activations of 4 bits (see popcount_signs.inl), two at a time. Where bit i of e is 0 the
// pattern holds -1, for which the shuffle gives zero.
inline void counts_of_32(uint8_t* planes, const int8_t* q) {
    // clang-format off
    alignas(32) static constexpr int8_t kPick[4][32] = {
        {-1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0, -1, 0,
         -1, 4, -1, 4, -1, 4, -1, 4, -1, 4, -1, 4, -1, 4, -1, 4},
        {-1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1,
         -1, -1, 5, 5, -1, -1, 5, 5, -1, -1, 5, 5, -1, -1, 5, 5},
        {-1, -1, -1, -1, 2, 2, 2, 2, -1, -1, -1, -1, 2, 2, 2, 2,
         -1, -1, -1, -1, 6, 6, 6, 6, -1, -1, -1, -1, 6, 6, 6, 6},
        {-1, -1, -1, -1, -1, -1, -1, -1, 3, 3, 3, 3, 3, 3, 3, 3,
         -1, -1, -1, -1, -1, -1, -1, -1, 7, 7, 7, 7, 7, 7, 7, 7}};
    // clang-format on
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(1);
    const __m256i lanes = _mm256_setr_epi64x(0, 0, 0x0404040404040404, 0x0404040404040404);
    for (int i = 0; i < 4; i++, planes += 32) {
        int64_t eight;
        memcpy(&eight, q + i * 8, 8);
        const __m256i a = _mm256_set1_epi64x(eight);
        const __m256i negative = _mm256_max_epi8(_mm256_sub_epi8(zero, a), zero);
        const __m256i pairs = _mm256_maddubs_epi16(negative, ones);
        __m256i u = _mm256_shuffle_epi8(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), lanes);
        for (int k = 0; k < 4; k++) {
            const __m256i pick = _mm256_load_si256(reinterpret_cast<const __m256i*>(kPick[k]));
            u = _mm256_add_epi8(u, _mm256_shuffle_epi8(a, pick));
        }
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(planes), u);
    }
}

inline uint32_t crc_of_u64(uint32_t crc, uint64_t v) { return static_cast<uint32_t>(_mm_crc32_u64(crc, v)); }
inline uint32_t crc_of_u8(uint32_t crc, uint8_t v) { return _mm_crc32_u8(crc, v); }
