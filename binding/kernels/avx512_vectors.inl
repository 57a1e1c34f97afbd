// Lanes, Bytes and their operations in 512-bit registers (AVX-512 F, BW, DQ, VL), for avx512.cpp and avx512vnni.cpp.
// Included inside the set's anonymous namespace.

using Lanes = __m512;
using LaneBits = __m512i;

constexpr int kDenseTokens = 4;
constexpr int kAttendQueries = 12;
constexpr int kDeltaLanes = 4;
constexpr int kAttendSums = 24;  // of 32 registers
constexpr int kHadamardStages = 4;  // 16 of the 32 registers

inline Lanes lanes_zero() { return _mm512_setzero_ps(); }
inline Lanes lanes_all(float x) { return _mm512_set1_ps(x); }
inline Lanes lanes_load(const float* p) { return _mm512_loadu_ps(p); }
inline void lanes_store(float* p, Lanes v) { _mm512_storeu_ps(p, v); }
inline Lanes lanes_add(Lanes x, Lanes y) { return _mm512_add_ps(x, y); }
inline Lanes lanes_sub(Lanes x, Lanes y) { return _mm512_sub_ps(x, y); }
inline Lanes lanes_mul(Lanes x, Lanes y) { return _mm512_mul_ps(x, y); }
inline Lanes lanes_div(Lanes x, Lanes y) { return _mm512_div_ps(x, y); }
inline Lanes lanes_fma(Lanes x, Lanes y, Lanes z) { return _mm512_fmadd_ps(x, y, z); }
// x > y ? x : y and x < y ? x : y: the second operand where either is NaN.
inline Lanes lanes_larger(Lanes x, Lanes y) { return _mm512_max_ps(x, y); }
inline Lanes lanes_smaller(Lanes x, Lanes y) { return _mm512_min_ps(x, y); }
// x < y ? 0 : v
inline Lanes lanes_unless_less(Lanes x, Lanes y, Lanes v) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, y, _CMP_NLT_UQ), v);
}
// -v in the lanes whose bit is set.
inline Lanes lanes_flip(Lanes v, uint32_t bits) {
    return _mm512_mask_xor_ps(v, static_cast<__mmask16>(bits), v, _mm512_set1_ps(-0.0f));
}
// (a, b) of lanes i and i + H, where i & H is 0, to (a + b, a - b).
template <int H>
inline Lanes lanes_butterfly(Lanes v) {
    constexpr __mmask16 kSecond = H == 1 ? 0xaaaa : H == 2 ? 0xcccc : H == 4 ? 0xf0f0 : 0xff00;
    Lanes other;
    if constexpr (H <= 2) other = _mm512_permute_ps(v, H == 1 ? 0xb1 : 0x4e);
    else other = _mm512_shuffle_f32x4(v, v, H == 4 ? 0xb1 : 0x4e);
    return _mm512_mask_sub_ps(_mm512_add_ps(v, other), kSecond, other, v);
}

// The first two steps of the tree: lanes 0..3 after l += l+8, l += l+4.
inline __m128 lanes_fold(Lanes v) {
    const __m256 s = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
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

// p * 2^k.
inline Lanes lanes_times_power(Lanes p, Lanes, Lanes k) { return _mm512_scalef_ps(p, k); }

inline LaneBits bits_zero() { return _mm512_setzero_si512(); }
inline LaneBits bits_larger_magnitude(LaneBits bits, Lanes v) {
    return _mm512_max_epi32(bits, _mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7fffffff)));
}
inline uint32_t bits_max(LaneBits bits) { return static_cast<uint32_t>(_mm512_reduce_max_epi32(bits)); }

inline Lanes lanes_from_i8(const int8_t* p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
inline Lanes lanes_from_i32(const int32_t* p) { return _mm512_cvtepi32_ps(_mm512_loadu_si512(p)); }
inline Lanes lanes_from_f16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline Lanes lanes_from_bf16(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
// 16 weights of two bits each, code - 1.
inline Lanes lanes_from_codes(uint32_t codes) {
    const __m512i shifts = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i all = _mm512_set1_epi32(static_cast<int>(codes));
    const __m512i each = _mm512_and_si512(_mm512_srlv_epi32(all, shifts), _mm512_set1_epi32(3));
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(each, _mm512_set1_epi32(1)));
}
inline float f16_to_float(uint16_t bits) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits))); }
inline void lanes_to_f16(uint16_t* p, Lanes v) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}
// Nearest even (the rounding mode nobody changes); |v| <= 127.5.
inline void lanes_to_i8(int8_t* q, Lanes v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
}

// ---- bytes -------------------------------------------------------------------------------------------------
using Bytes = __m512i;
using Ints = __m512i;   // 16 int32
using Floats = __m512;  // 16 floats
constexpr int kBytes = 64;
constexpr int kCountTokens = 4, kCountBlocks = 2;  // what popcount_signs.inl counts at a time

inline Bytes bytes_zero() { return _mm512_setzero_si512(); }
inline Bytes bytes_all(int8_t x) { return _mm512_set1_epi8(x); }
inline Bytes bytes_load(const uint8_t* p) { return _mm512_loadu_si512(p); }
inline void bytes_store(uint8_t* p, Bytes b) { _mm512_storeu_si512(p, b); }
inline Bytes table_load(const uint8_t* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline Bytes low_nibbles(Bytes b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
inline Bytes high_nibbles(Bytes b) { return _mm512_and_si512(_mm512_srli_epi16(b, 4), _mm512_set1_epi8(15)); }
inline Bytes bytes_and(Bytes a, Bytes b) { return _mm512_and_si512(a, b); }
// Of words: what comes from the neighbouring byte is for the caller to mask.
template <int N>
inline Bytes bytes_shift_right(Bytes b) {
    return _mm512_srli_epi16(b, N);
}
// Four bytes, again and again.
inline Bytes bytes_of_four(const int8_t* p) {
    int32_t four;
    memcpy(&four, p, 4);
    return _mm512_set1_epi32(four);
}
inline Bytes lookup(Bytes table, Bytes index) { return _mm512_shuffle_epi8(table, index); }
inline Bytes bytes_add(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }
// Keeps GCC from regrouping the additions into a tree: it would hold every lookup's result in a register until the
// end, and spill most of them. pair_now: both are in registers here, and what follows comes after. Two lookups and then
// two additions are what Zen 4 does best (one 512-bit lookup a cycle; 0.8 where they alternate, and compilers let them).
#if defined(__GNUC__)
inline void add_now(Bytes& sum) { __asm__("" : "+v"(sum)); }
inline void pair_now(Bytes& a, Bytes& b) { __asm__("" : "+v"(a), "+v"(b)); }
#else
inline void add_now(Bytes&) {}
inline void pair_now(Bytes&, Bytes&) {}
#endif
inline Bytes words_add(Bytes a, Bytes b) { return _mm512_add_epi16(a, b); }
inline Bytes words_add_odd(Bytes a, Bytes b) { return _mm512_add_epi16(a, _mm512_srli_epi16(b, 8)); }
ONEBIT_INLINE void prefetch_near(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
ONEBIT_INLINE void prefetch_far(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T1); }
// The same, between what makes v and what uses it. Clang gathers plain prefetches at the end of a long loop, where most of them
// find no room and wait: decoding with signs in memory was 13 % slower than GCC's, which leaves them where they stand.
#if defined(__GNUC__)
ONEBIT_INLINE void prefetch_near_with(Bytes& v, const uint8_t* p) { __asm__("prefetcht0 %1" : "+v"(v) : "m"(*p)); }
ONEBIT_INLINE void prefetch_far_with(Bytes& v, const uint8_t* p) { __asm__("prefetcht1 %1" : "+v"(v) : "m"(*p)); }
#else
ONEBIT_INLINE void prefetch_near_with(Bytes&, const uint8_t* p) { prefetch_near(p); }
ONEBIT_INLINE void prefetch_far_with(Bytes&, const uint8_t* p) { prefetch_far(p); }
#endif

inline Ints ints_zero() { return _mm512_setzero_si512(); }
inline Ints ints_all(int32_t x) { return _mm512_set1_epi32(x); }
inline Ints ints_load(const int32_t* p) { return _mm512_loadu_si512(p); }
inline void ints_store(int32_t* p, Ints v) { _mm512_storeu_si512(p, v); }
inline Ints ints_add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
inline Ints ints_sub(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
template <int N>
inline Ints ints_shift_right(Ints v) {
    return _mm512_srai_epi32(v, N);
}
inline __m128i ints_fold(Ints v) {
    const __m256i s = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
}
// The sum of each.
inline void ints_sum4(int32_t* out, Ints a, Ints b, Ints c, Ints d) {
    const __m512i ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    const __m512i cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    const __m512i abcd = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), ints_fold(abcd));
}
inline Floats floats_zero() { return _mm512_setzero_ps(); }
inline Floats floats_all(float x) { return _mm512_set1_ps(x); }
inline Floats floats_load(const float* p) { return _mm512_loadu_ps(p); }
inline void floats_store(float* p, Floats v) { _mm512_storeu_ps(p, v); }
inline Floats floats_fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
inline Floats floats_from_ints(Ints v) { return _mm512_cvtepi32_ps(v); }
inline Floats floats_from_f16(const uint16_t* p) { return lanes_from_f16(p); }

// u = low + 32 * high as four vectors of int32, from sums of 16-bit words and of their odd bytes.
inline void widen_sums(Ints (&u)[4], Bytes low, Bytes low_odd, Bytes high, Bytes high_odd) {
    const __m512i factors = _mm512_set1_epi32(32 << 16 | 1);
    const __m512i low_even = _mm512_sub_epi16(low, _mm512_slli_epi16(low_odd, 8));
    const __m512i high_even = _mm512_sub_epi16(high, _mm512_slli_epi16(high_odd, 8));
    u[0] = _mm512_madd_epi16(_mm512_unpacklo_epi16(low_even, high_even), factors);
    u[1] = _mm512_madd_epi16(_mm512_unpackhi_epi16(low_even, high_even), factors);
    u[2] = _mm512_madd_epi16(_mm512_unpacklo_epi16(low_odd, high_odd), factors);
    u[3] = _mm512_madd_epi16(_mm512_unpackhi_epi16(low_odd, high_odd), factors);
}

#include "x86_tables.inl"
