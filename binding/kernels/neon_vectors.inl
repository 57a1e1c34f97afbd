// Lanes, Bytes and their operations in 128-bit registers (every aarch64 processor), for neon.cpp and neondot.cpp.
// Included inside the set's anonymous namespace.

struct Lanes {
    float32x4_t v[4];  // lanes 0..3, 4..7, 8..11, 12..15
};
struct LaneBits {
    uint32x4_t v;
};

constexpr int kDenseTokens = 1;  // 4 rows of Lanes are 16 of the 32 registers
constexpr int kAttendQueries = 2;
constexpr int kDeltaLanes = 1;
constexpr int kAttendSums = 4;
constexpr int kHadamardStages = 2;  // 4 Lanes are 16 of the 32 registers

template <class F>
inline Lanes each(F f) {
    return {{f(0), f(1), f(2), f(3)}};
}

inline Lanes lanes_all(float x) {
    return each([=](int) { return vdupq_n_f32(x); });
}
inline Lanes lanes_zero() { return lanes_all(0.0f); }
inline Lanes lanes_load(const float* p) {
    return each([=](int i) { return vld1q_f32(p + i * 4); });
}
inline void lanes_store(float* p, const Lanes& x) {
    for (int i = 0; i < 4; i++) vst1q_f32(p + i * 4, x.v[i]);
}
inline Lanes lanes_add(const Lanes& x, const Lanes& y) {
    return each([&](int i) { return vaddq_f32(x.v[i], y.v[i]); });
}
inline Lanes lanes_sub(const Lanes& x, const Lanes& y) {
    return each([&](int i) { return vsubq_f32(x.v[i], y.v[i]); });
}
inline Lanes lanes_mul(const Lanes& x, const Lanes& y) {
    return each([&](int i) { return vmulq_f32(x.v[i], y.v[i]); });
}
inline Lanes lanes_div(const Lanes& x, const Lanes& y) {
    return each([&](int i) { return vdivq_f32(x.v[i], y.v[i]); });
}
inline Lanes lanes_fma(const Lanes& x, const Lanes& y, const Lanes& z) {
    return each([&](int i) { return vfmaq_f32(z.v[i], x.v[i], y.v[i]); });
}
// x > y ? x : y and x < y ? x : y: the second operand where either is NaN. (The instruction vmax returns NaN there.)
inline Lanes lanes_larger(const Lanes& x, const Lanes& y) {
    return each([&](int i) { return vbslq_f32(vcgtq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
}
inline Lanes lanes_smaller(const Lanes& x, const Lanes& y) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), x.v[i], y.v[i]); });
}
// x < y ? 0 : v
inline Lanes lanes_unless_less(const Lanes& x, const Lanes& y, const Lanes& v) {
    return each([&](int i) { return vbslq_f32(vcltq_f32(x.v[i], y.v[i]), vdupq_n_f32(0), v.v[i]); });
}
// -v in the lanes whose bit is set: each lane shifts its own bit up to the sign.
inline Lanes lanes_flip(const Lanes& x, uint32_t bits) {
    const int32_t first[4] = {31, 30, 29, 28};
    const int32x4_t shift = vld1q_s32(first);
    const uint32x4_t all = vdupq_n_u32(bits), sign = vdupq_n_u32(0x80000000u);
    return each([&](int i) {
        const uint32x4_t flip = vandq_u32(vshlq_u32(all, vsubq_s32(shift, vdupq_n_s32(i * 4))), sign);
        return vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(x.v[i]), flip));
    });
}
// (a, b) of lanes i and i + H, where i & H is 0, to (a + b, a - b).
template <int H>
inline Lanes lanes_butterfly(const Lanes& x) {
    if constexpr (H >= 4) {
        constexpr int kApart = H / 4;
        return each([&](int i) {
            return (i & kApart) == 0 ? vaddq_f32(x.v[i], x.v[i + kApart]) : vsubq_f32(x.v[i - kApart], x.v[i]);
        });
    } else {
        const uint32_t second[4] = {0, H == 1 ? ~0u : 0, H == 1 ? 0 : ~0u, ~0u};
        const uint32x4_t mask = vld1q_u32(second);
        return each([&](int i) {
            const float32x4_t v = x.v[i], other = H == 1 ? vrev64q_f32(v) : vextq_f32(v, v, 2);
            return vbslq_f32(mask, vsubq_f32(other, v), vaddq_f32(v, other));
        });
    }
}
inline float lanes_sum(const Lanes& x) {
    const float32x4_t s = vaddq_f32(vaddq_f32(x.v[0], x.v[2]), vaddq_f32(x.v[1], x.v[3]));  // l += l+8, l += l+4
    const float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return vget_lane_f32(t, 0) + vget_lane_f32(t, 1);
}
inline void lanes_sum4(float* out, const Lanes& a, const Lanes& b, const Lanes& c, const Lanes& d) {
    out[0] = lanes_sum(a);
    out[1] = lanes_sum(b);
    out[2] = lanes_sum(c);
    out[3] = lanes_sum(d);
}
// p * 2^k by 2^(k/2) and 2^(k - k/2); shifted = 1.5 * 2^23 + k.
inline Lanes lanes_times_power(Lanes p, const Lanes& shifted, const Lanes&) {
    const int32x4_t bias = vdupq_n_s32(127);
    for (int i = 0; i < 4; i++) {
        const int32x4_t k = vsubq_s32(vreinterpretq_s32_f32(shifted.v[i]), vdupq_n_s32(0x4b400000));
        const int32x4_t half = vshrq_n_s32(k, 1);
        const float32x4_t first = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
        const float32x4_t second = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vsubq_s32(k, half), bias), 23));
        p.v[i] = vmulq_f32(vmulq_f32(p.v[i], first), second);
    }
    return p;
}
inline LaneBits bits_zero() { return {vdupq_n_u32(0)}; }
inline LaneBits bits_larger_magnitude(LaneBits bits, const Lanes& x) {
    for (float32x4_t v : x.v) bits.v = vmaxq_u32(bits.v, vandq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(0x7fffffffu)));
    return bits;
}
inline uint32_t bits_max(LaneBits bits) { return vmaxvq_u32(bits.v); }

inline Lanes lanes_from_i8(const int8_t* p) {
    const int8x16_t b = vld1q_s8(p);
    const int16x8_t low = vmovl_s8(vget_low_s8(b)), high = vmovl_s8(vget_high_s8(b));
    return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(low))),
             vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(high)))}};
}
inline Lanes lanes_from_i32(const int32_t* p) {
    return each([=](int i) { return vcvtq_f32_s32(vld1q_s32(p + i * 4)); });
}
inline float32x4_t four_from_f16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
inline Lanes lanes_from_f16(const uint16_t* p) {
    return each([=](int i) { return four_from_f16(p + i * 4); });
}
inline Lanes lanes_from_bf16(const uint16_t* p) {
    return each([=](int i) { return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + i * 4), 16)); });
}
// 16 weights of two bits each, code - 1.
inline Lanes lanes_from_codes(uint32_t codes) {
    const int32_t first[4] = {0, -2, -4, -6};
    const int32x4_t shifts = vld1q_s32(first);
    return each([=](int i) {
        const uint32x4_t bits = vandq_u32(vshlq_u32(vdupq_n_u32(codes >> 8 * i), shifts), vdupq_n_u32(3));
        return vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(bits), vdupq_n_s32(1)));
    });
}
inline float f16_to_float(uint16_t bits) {
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
}
inline void lanes_to_f16(uint16_t* p, const Lanes& x) {
    for (int i = 0; i < 4; i++) vst1_u16(p + i * 4, vreinterpret_u16_f16(vcvt_f16_f32(x.v[i])));
}
// Nearest even; |v| <= 127.5.
inline void lanes_to_i8(int8_t* q, const Lanes& x) {
    const int16x8_t low = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.v[0])), vqmovn_s32(vcvtnq_s32_f32(x.v[1])));
    const int16x8_t high = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(x.v[2])), vqmovn_s32(vcvtnq_s32_f32(x.v[3])));
    vst1q_s8(q, vcombine_s8(vqmovn_s16(low), vqmovn_s16(high)));
}

// ---- bytes -------------------------------------------------------------------------------------------------
using Bytes = uint8x16_t;
using Ints = int32x4_t;
using Floats = float32x4_t;
constexpr int kBytes = 16;
constexpr int kCountTokens = 2, kCountBlocks = 1;  // what popcount_signs.inl counts at a time

inline Bytes bytes_zero() { return vdupq_n_u8(0); }
inline Bytes bytes_all(int8_t x) { return vreinterpretq_u8_s8(vdupq_n_s8(x)); }
inline Bytes bytes_load(const uint8_t* p) { return vld1q_u8(p); }
inline void bytes_store(uint8_t* p, Bytes b) { vst1q_u8(p, b); }
inline Bytes table_load(const uint8_t* p) { return vld1q_u8(p); }
inline Bytes low_nibbles(Bytes b) { return vandq_u8(b, vdupq_n_u8(15)); }
inline Bytes high_nibbles(Bytes b) { return vshrq_n_u8(b, 4); }
inline Bytes bytes_and(Bytes a, Bytes b) { return vandq_u8(a, b); }
// Of words, as the other sets' is: what comes from the neighbouring byte is for the caller to mask.
template <int N>
inline Bytes bytes_shift_right(Bytes b) {
    if constexpr (N == 0) return b;
    else return vreinterpretq_u8_u16(vshrq_n_u16(vreinterpretq_u16_u8(b), N));
}
// Four bytes, again and again.
inline Bytes bytes_of_four(const int8_t* p) {
    int32_t four;
    memcpy(&four, p, 4);
    return vreinterpretq_u8_s32(vdupq_n_s32(four));
}
inline Bytes lookup(Bytes table, Bytes index) { return vqtbl1q_u8(table, index); }
inline Bytes bytes_add(Bytes a, Bytes b) { return vaddq_u8(a, b); }
// Keeps GCC from regrouping the additions into a tree: it would hold every lookup's result in a register until the
// end, and spill most of them. pair_now: both are in registers here, and what follows comes after. Two lookups and then
// two additions are what Zen 4 does best (one 512-bit lookup a cycle; 0.8 where they alternate, and compilers let them).
#if defined(__GNUC__)
inline void add_now(Bytes& sum) { __asm__("" : "+w"(sum)); }
inline void pair_now(Bytes& a, Bytes& b) { __asm__("" : "+w"(a), "+w"(b)); }
#else
inline void add_now(Bytes&) {}
inline void pair_now(Bytes&, Bytes&) {}
#endif
inline Bytes words_add(Bytes a, Bytes b) {
    return vreinterpretq_u8_u16(vaddq_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b)));
}
inline Bytes words_add_odd(Bytes a, Bytes b) {
    return vreinterpretq_u8_u16(vsraq_n_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b), 8));
}
#if defined(_MSC_VER) && !defined(__clang__)
ONEBIT_INLINE void prefetch_near(const uint8_t* p) { __prefetch(p); }
ONEBIT_INLINE void prefetch_far(const uint8_t* p) { __prefetch2(p, 2); }  // PLDL2KEEP
#else
ONEBIT_INLINE void prefetch_near(const uint8_t* p) { __builtin_prefetch(p, 0, 3); }
ONEBIT_INLINE void prefetch_far(const uint8_t* p) { __builtin_prefetch(p, 0, 2); }
#endif
// What keeps clang from gathering them elsewhere (avx2_vectors.inl) has not been tried: no ARM machine was at hand to time it.
ONEBIT_INLINE void prefetch_near_with(Bytes&, const uint8_t* p) { prefetch_near(p); }
ONEBIT_INLINE void prefetch_far_with(Bytes&, const uint8_t* p) { prefetch_far(p); }

inline Ints ints_zero() { return vdupq_n_s32(0); }
inline Ints ints_all(int32_t x) { return vdupq_n_s32(x); }
inline Ints ints_load(const int32_t* p) { return vld1q_s32(p); }
inline void ints_store(int32_t* p, Ints v) { vst1q_s32(p, v); }
inline Ints ints_add(Ints a, Ints b) { return vaddq_s32(a, b); }
inline Ints ints_sub(Ints a, Ints b) { return vsubq_s32(a, b); }
template <int N>
inline Ints ints_shift_right(Ints v) {
    if constexpr (N == 0) return v;
    else return vshrq_n_s32(v, N);
}
// The sum of each.
inline void ints_sum4(int32_t* out, Ints a, Ints b, Ints c, Ints d) {
    vst1q_s32(out, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)));
}
inline Floats floats_zero() { return vdupq_n_f32(0.0f); }
inline Floats floats_all(float x) { return vdupq_n_f32(x); }
inline Floats floats_load(const float* p) { return vld1q_f32(p); }
inline void floats_store(float* p, Floats v) { vst1q_f32(p, v); }
inline Floats floats_fma(Floats a, Floats b, Floats c) { return vfmaq_f32(c, a, b); }
inline Floats floats_from_ints(Ints v) { return vcvtq_f32_s32(v); }
inline Floats floats_from_f16(const uint16_t* p) { return four_from_f16(p); }

// low + 32 * high of four words.
inline Ints join_words(uint16x4_t low, uint16x4_t high) {
    return vreinterpretq_s32_u32(vmlal_n_u16(vmovl_u16(low), high, 32));
}
// u = low + 32 * high as four vectors of int32, from sums of 16-bit words and of their odd bytes.
inline void widen_sums(Ints (&u)[4], Bytes low, Bytes low_odd, Bytes high, Bytes high_odd) {
    const uint16x8_t lo = vreinterpretq_u16_u8(low_odd), ho = vreinterpretq_u16_u8(high_odd);
    const uint16x8_t le = vsubq_u16(vreinterpretq_u16_u8(low), vshlq_n_u16(lo, 8));
    const uint16x8_t he = vsubq_u16(vreinterpretq_u16_u8(high), vshlq_n_u16(ho, 8));
    u[0] = join_words(vget_low_u16(le), vget_low_u16(he));
    u[1] = join_words(vget_high_u16(le), vget_high_u16(he));
    u[2] = join_words(vget_low_u16(lo), vget_low_u16(ho));
    u[3] = join_words(vget_high_u16(lo), vget_high_u16(ho));
}

// Eight of the 16 sums of a table (see lookup_signs.inl): u(e) = the sum of |a_i| of negative a_i + the sum of a_i over
// the bits of e.
inline int16x8_t eight_sums(int16x8_t start, const int8_t* q) {
    static constexpr int16_t kPick[3][8] = {
        {0, 1, 0, 1, 0, 1, 0, 1}, {0, 0, 1, 1, 0, 0, 1, 1}, {0, 0, 0, 0, 1, 1, 1, 1}};
    for (int i = 0; i < 3; i++) start = vmlaq_n_s16(start, vld1q_s16(kPick[i]), q[i]);
    return start;
}
// 16 low and 16 high halves of u for four activations.
inline void table_of_four(uint8_t* table, const int8_t* q) {
    int negative = 0;
    for (int i = 0; i < 4; i++) negative += q[i] < 0 ? -q[i] : 0;
    const int16x8_t first = eight_sums(vdupq_n_s16(static_cast<int16_t>(negative)), q);
    const uint16x8_t a = vreinterpretq_u16_s16(first);
    const uint16x8_t b = vreinterpretq_u16_s16(vaddq_s16(first, vdupq_n_s16(q[3])));
    const uint16x8_t mask = vdupq_n_u16(31);
    vst1q_u8(table, vcombine_u8(vmovn_u16(vandq_u16(a, mask)), vmovn_u16(vandq_u16(b, mask))));
    vst1q_u8(table + 16, vcombine_u8(vshrn_n_u16(a, 5), vshrn_n_u16(b, 5)));
}
// The eight tables of 32 activations.
inline void tables_of_32(uint8_t* table, const int8_t* q) {
    for (int i = 0; i < 8; i++) table_of_four(table + i * 32, q + i * 4);
}

// The eight tables of 32 activations of 4 bits (see popcount_signs.inl). Where bit i of e is 0 the pattern holds 255,
// for which the lookup gives zero.
inline void counts_of_32(uint8_t* planes, const int8_t* q) {
    static constexpr uint8_t kPick[4][16] = {
        {255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0},
        {255, 255, 1, 1, 255, 255, 1, 1, 255, 255, 1, 1, 255, 255, 1, 1},
        {255, 255, 255, 255, 2, 2, 2, 2, 255, 255, 255, 255, 2, 2, 2, 2},
        {255, 255, 255, 255, 255, 255, 255, 255, 3, 3, 3, 3, 3, 3, 3, 3}};
    for (int i = 0; i < 8; i++, q += 4, planes += 16) {
        int32_t four;
        memcpy(&four, q, 4);
        const uint8x16_t a = vreinterpretq_u8_s32(vdupq_n_s32(four));
        int negative = 0;
        for (int k = 0; k < 4; k++) negative += q[k] < 0 ? -q[k] : 0;
        uint8x16_t u = vdupq_n_u8(static_cast<uint8_t>(negative));
        for (const auto& pick : kPick) u = vaddq_u8(u, vqtbl1q_u8(a, vld1q_u8(pick)));
        vst1q_u8(planes, u);
    }
}
