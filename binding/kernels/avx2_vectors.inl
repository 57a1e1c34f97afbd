// Lanes, Bytes and their operations in 256-bit registers (AVX2, FMA, F16C), for avx2.cpp and avxvnni.cpp. Included
// inside the set's anonymous namespace.

struct Lanes {
    __m256 a, b;  // lanes 0..7, 8..15
};
using LaneBits = __m256i;

constexpr int kDenseTokens = 1;  // 4 rows of Lanes are 8 of the 16 registers
constexpr int kAttendQueries = 6;
constexpr int kDeltaLanes = 2;
constexpr int kAttendSums = 6;  // 12 of the 16 registers
constexpr int kHadamardStages = 2;  // 4 Lanes are 8 of the 16 registers

inline Lanes lanes_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes lanes_all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes lanes_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void lanes_store(float* p, Lanes v) {
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}
inline Lanes lanes_add(Lanes x, Lanes y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
inline Lanes lanes_sub(Lanes x, Lanes y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
inline Lanes lanes_mul(Lanes x, Lanes y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
inline Lanes lanes_div(Lanes x, Lanes y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
inline Lanes lanes_fma(Lanes x, Lanes y, Lanes z) {
    return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)};
}
// x > y ? x : y and x < y ? x : y: the second operand where either is NaN.
inline Lanes lanes_larger(Lanes x, Lanes y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
inline Lanes lanes_smaller(Lanes x, Lanes y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
// x < y ? 0 : v
inline Lanes lanes_unless_less(Lanes x, Lanes y, Lanes v) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.a, y.a, _CMP_NLT_UQ), v.a), _mm256_and_ps(_mm256_cmp_ps(x.b, y.b, _CMP_NLT_UQ), v.b)};
}

// -v in the lanes whose bit is set: each lane shifts its own bit up to the sign.
inline Lanes lanes_flip(Lanes v, uint32_t bits) {
    const __m256i all = _mm256_set1_epi32(static_cast<int>(bits));
    const __m256i sign = _mm256_set1_epi32(static_cast<int>(0x80000000u));
    const __m256i low = _mm256_sllv_epi32(all, _mm256_setr_epi32(31, 30, 29, 28, 27, 26, 25, 24));
    const __m256i high = _mm256_sllv_epi32(all, _mm256_setr_epi32(23, 22, 21, 20, 19, 18, 17, 16));
    return {_mm256_xor_ps(v.a, _mm256_castsi256_ps(_mm256_and_si256(low, sign))),
            _mm256_xor_ps(v.b, _mm256_castsi256_ps(_mm256_and_si256(high, sign)))};
}
// (a, b) of lanes i and i + H, where i & H is 0, to (a + b, a - b).
template <int H>
inline __m256 half_butterfly(__m256 v) {
    constexpr int kSecond = H == 1 ? 0xaa : H == 2 ? 0xcc : 0xf0;
    __m256 other;
    if constexpr (H <= 2) other = _mm256_permute_ps(v, H == 1 ? 0xb1 : 0x4e);
    else other = _mm256_permute2f128_ps(v, v, 1);
    return _mm256_blend_ps(_mm256_add_ps(v, other), _mm256_sub_ps(other, v), kSecond);
}
template <int H>
inline Lanes lanes_butterfly(Lanes v) {
    if constexpr (H == 8) return {_mm256_add_ps(v.a, v.b), _mm256_sub_ps(v.a, v.b)};
    else return {half_butterfly<H>(v.a), half_butterfly<H>(v.b)};
}

// The first two steps of the tree: lanes 0..3 after l += l+8, l += l+4.
inline __m128 lanes_fold(Lanes v) {
    const __m256 s = _mm256_add_ps(v.a, v.b);
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}
inline float lanes_sum(Lanes v) {
    const __m128 s = lanes_fold(v);
    const __m128 t = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
// Four trees at once: the same additions, after a transposition.
inline void lanes_sum4(float* out, Lanes a, Lanes b, Lanes c, Lanes d) {
    const __m128 fa = lanes_fold(a), fb = lanes_fold(b), fc = lanes_fold(c), fd = lanes_fold(d);
    const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(fa, fb), _mm_unpackhi_ps(fa, fb));
    const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(fc, fd), _mm_unpackhi_ps(fc, fd));
    _mm_storeu_ps(out, _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab)));
}

// p * 2^k by 2^(k/2) and 2^(k - k/2); shifted = 1.5 * 2^23 + k.
inline __m256 times_power(__m256 p, __m256 shifted) {
    const __m256i k = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_set1_epi32(0x4b400000));
    const __m256i half = _mm256_srai_epi32(k, 1), bias = _mm256_set1_epi32(127);
    const __m256i first = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i second = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(k, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(first)), _mm256_castsi256_ps(second));
}
inline Lanes lanes_times_power(Lanes p, Lanes shifted, Lanes) {
    return {times_power(p.a, shifted.a), times_power(p.b, shifted.b)};
}

inline LaneBits bits_zero() { return _mm256_setzero_si256(); }
inline LaneBits bits_larger_magnitude(LaneBits bits, Lanes v) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    const __m256i a = _mm256_and_si256(_mm256_castps_si256(v.a), magnitude);
    const __m256i b = _mm256_and_si256(_mm256_castps_si256(v.b), magnitude);
    return _mm256_max_epi32(bits, _mm256_max_epi32(a, b));
}
inline uint32_t bits_max(LaneBits bits) {
    __m128i m = _mm_max_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
    m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
    return static_cast<uint32_t>(_mm_cvtsi128_si32(m));
}

inline Lanes lanes_from_i8(const int8_t* p) {
    const __m128i v = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(v)),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(v, 8)))};
}
inline Lanes lanes_from_i32(const int32_t* p) {
    return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))),
            _mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8)))};
}
inline __m256 eight_from_f16(const uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Lanes lanes_from_f16(const uint16_t* p) { return {eight_from_f16(p), eight_from_f16(p + 8)}; }
inline __m256 eight_from_bf16(const uint16_t* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline Lanes lanes_from_bf16(const uint16_t* p) { return {eight_from_bf16(p), eight_from_bf16(p + 8)}; }
// 16 weights of two bits each, code - 1.
inline __m256 eight_from_codes(uint32_t codes) {
    const __m256i all = _mm256_set1_epi32(static_cast<int>(codes));
    const __m256i each = _mm256_srlv_epi32(all, _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
    const __m256i bits = _mm256_and_si256(each, _mm256_set1_epi32(3));
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(bits, _mm256_set1_epi32(1)));
}
inline Lanes lanes_from_codes(uint32_t codes) { return {eight_from_codes(codes), eight_from_codes(codes >> 16)}; }
inline float f16_to_float(uint16_t bits) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))); }
inline void lanes_to_f16(uint16_t* p, Lanes v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.a, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(v.b, _MM_FROUND_TO_NEAREST_INT));
}
// Nearest even (the rounding mode nobody changes); |v| <= 127.5.
inline void lanes_to_i8(int8_t* q, Lanes v) {
    const __m256i words = _mm256_packs_epi32(_mm256_cvtps_epi32(v.a), _mm256_cvtps_epi32(v.b));
    const __m256i ordered = _mm256_permute4x64_epi64(words, 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), bytes);
}

// ---- bytes -------------------------------------------------------------------------------------------------
using Bytes = __m256i;
using Ints = __m256i;   // 8 int32
using Floats = __m256;  // 8 floats
constexpr int kBytes = 32;
constexpr int kCountTokens = 2, kCountBlocks = 1;  // what popcount_signs.inl counts at a time

inline Bytes bytes_zero() { return _mm256_setzero_si256(); }
inline Bytes bytes_all(int8_t x) { return _mm256_set1_epi8(x); }
inline Bytes bytes_load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void bytes_store(uint8_t* p, Bytes b) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), b); }
inline Bytes table_load(const uint8_t* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Bytes low_nibbles(Bytes b) { return _mm256_and_si256(b, _mm256_set1_epi8(15)); }
inline Bytes high_nibbles(Bytes b) { return _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi8(15)); }
inline Bytes bytes_and(Bytes a, Bytes b) { return _mm256_and_si256(a, b); }
// Of words: what comes from the neighbouring byte is for the caller to mask.
template <int N>
inline Bytes bytes_shift_right(Bytes b) {
    return _mm256_srli_epi16(b, N);
}
// Four bytes, again and again.
inline Bytes bytes_of_four(const int8_t* p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm256_set1_epi32(four);
}
inline Bytes lookup(Bytes table, Bytes index) { return _mm256_shuffle_epi8(table, index); }
inline Bytes bytes_add(Bytes a, Bytes b) { return _mm256_add_epi8(a, b); }
// Keeps GCC from regrouping the additions into a tree: it would hold every lookup's result in a register until the
// end, and spill most of them. pair_now: both are in registers here, and what follows comes after. Two lookups and then
// two additions are what Zen 4 does best (one 512-bit lookup a cycle; 0.8 where they alternate, and compilers let them).
#if defined(__GNUC__)
inline void add_now(Bytes& sum) { __asm__("" : "+x"(sum)); }
inline void pair_now(Bytes& a, Bytes& b) { __asm__("" : "+x"(a), "+x"(b)); }
#else
inline void add_now(Bytes&) {}
inline void pair_now(Bytes&, Bytes&) {}
#endif
inline Bytes words_add(Bytes a, Bytes b) { return _mm256_add_epi16(a, b); }
inline Bytes words_add_odd(Bytes a, Bytes b) { return _mm256_add_epi16(a, _mm256_srli_epi16(b, 8)); }
ONEBIT_INLINE void prefetch_near(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
ONEBIT_INLINE void prefetch_far(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }
// The same, between what makes v and what uses it. Clang gathers plain prefetches at the end of a long loop, where most of them
// find no room and wait: decoding with signs in memory was 13 % slower than GCC's, which leaves them where they stand.
#if defined(__GNUC__)
ONEBIT_INLINE void prefetch_near_with(Bytes& v, const uint8_t* p) { __asm__("prefetcht0 %1" : "+x"(v) : "m"(*p)); }
ONEBIT_INLINE void prefetch_far_with(Bytes& v, const uint8_t* p) { __asm__("prefetcht1 %1" : "+x"(v) : "m"(*p)); }
#else
ONEBIT_INLINE void prefetch_near_with(Bytes&, const uint8_t* p) { prefetch_near(p); }
ONEBIT_INLINE void prefetch_far_with(Bytes&, const uint8_t* p) { prefetch_far(p); }
#endif

inline Ints ints_zero() { return _mm256_setzero_si256(); }
inline Ints ints_all(int32_t x) { return _mm256_set1_epi32(x); }
inline Ints ints_load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
inline void ints_store(int32_t* p, Ints v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
inline Ints ints_add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
inline Ints ints_sub(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
template <int N>
inline Ints ints_shift_right(Ints v) {
    return _mm256_srai_epi32(v, N);
}
inline __m128i ints_fold(Ints v) { return _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)); }
// The sum of each.
inline void ints_sum4(int32_t* out, Ints a, Ints b, Ints c, Ints d) {
    const __m256i ab = _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    const __m256i cd = _mm256_add_epi32(_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    const __m256i abcd = _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), ints_fold(abcd));
}
inline Floats floats_zero() { return _mm256_setzero_ps(); }
inline Floats floats_all(float x) { return _mm256_set1_ps(x); }
inline Floats floats_load(const float* p) { return _mm256_loadu_ps(p); }
inline void floats_store(float* p, Floats v) { _mm256_storeu_ps(p, v); }
inline Floats floats_fma(Floats a, Floats b, Floats c) { return _mm256_fmadd_ps(a, b, c); }
inline Floats floats_from_ints(Ints v) { return _mm256_cvtepi32_ps(v); }
inline Floats floats_from_f16(const uint16_t* p) { return eight_from_f16(p); }

// u = low + 32 * high as four vectors of int32, from sums of 16-bit words and of their odd bytes.
inline void widen_sums(Ints (&u)[4], Bytes low, Bytes low_odd, Bytes high, Bytes high_odd) {
    const __m256i factors = _mm256_set1_epi32(32 << 16 | 1);
    const __m256i low_even = _mm256_sub_epi16(low, _mm256_slli_epi16(low_odd, 8));
    const __m256i high_even = _mm256_sub_epi16(high, _mm256_slli_epi16(high_odd, 8));
    u[0] = _mm256_madd_epi16(_mm256_unpacklo_epi16(low_even, high_even), factors);
    u[1] = _mm256_madd_epi16(_mm256_unpackhi_epi16(low_even, high_even), factors);
    u[2] = _mm256_madd_epi16(_mm256_unpacklo_epi16(low_odd, high_odd), factors);
    u[3] = _mm256_madd_epi16(_mm256_unpackhi_epi16(low_odd, high_odd), factors);
}

#include "x86_tables.inl"
