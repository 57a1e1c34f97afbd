// The probes, written once over the set's Bytes, Ints and Lanes (kernels/*_vectors.inl) and its dot(). Included inside
// the set's anonymous namespace. Needs:
//
//   ONEBIT_REGISTER         the constraint letter of a vector register in inline assembly
//   dot(sum, w, a)          the cheapest exact way to add the products of kBytes bytes to int32 sums
//   kAccumulators           independent sums: enough to hide the latency, few enough to stay in registers
//
// Nothing may be optimised away: what a loop multiplies passes through opaque(), so that the compiler must take it for
// new each time, and its sums reach the caller. opaque() costs no instruction with GCC and Clang.

#if defined(__GNUC__)
template <class V>
inline void opaque(V& v) {
    __asm__ volatile("" : "+" ONEBIT_REGISTER(v));
}
#else
// Through a pointer that the compiler must read again: two loads, which run beside the arithmetic.
template <class V>
inline void opaque(V& v) {
    V* volatile p = &v;
    v = *p;
}
#endif

inline uint64_t fold(Ints v) {
    uint8_t bytes[kBytes];
    memcpy(bytes, &v, sizeof bytes);
    uint64_t sum = 0;
    for (int i = 0; i < kBytes; i++) sum = sum * 31 + bytes[i];
    return sum;
}

constexpr int kReadStep = 512;  // bytes: 8 cache lines

// near, far: how many bytes ahead to prefetch; 0: not at all.
template <int near_bytes, int far_bytes>
inline uint64_t read_memory(const uint8_t* p, size_t bytes) {
    constexpr int kSums = 8;
    Ints sums[kSums];
    for (Ints& sum : sums) sum = ints_zero();
    for (const uint8_t* end = p + bytes; p < end; p += kReadStep) {
        for (int line = 0; line < kReadStep; line += 64) {
            if constexpr (near_bytes > 0) prefetch_near(p + line + near_bytes);
            if constexpr (far_bytes > 0) prefetch_far(p + line + far_bytes);
        }
        for (int i = 0; i < kReadStep / kBytes; i++) {
            sums[i % kSums] = ints_add(sums[i % kSums], ints_load(reinterpret_cast<const int32_t*>(p + i * kBytes)));
        }
    }
    for (int i = 1; i < kSums; i++) sums[0] = ints_add(sums[0], sums[i]);
    return fold(sums[0]);
}

uint64_t read_plain(const uint8_t* p, size_t bytes) { return read_memory<0, 0>(p, bytes); }
uint64_t read_prefetch_near(const uint8_t* p, size_t bytes) { return read_memory<4096, 0>(p, bytes); }
uint64_t read_prefetch_both(const uint8_t* p, size_t bytes) { return read_memory<2048, 16384>(p, bytes); }

constexpr int kUnroll = 4;

// f(sums[0]), f(sums[1]), ..., kUnroll times, all written out: compilers do not unroll such loops on their own, sums that are
// indexed by a variable lie in memory, and the end of a short loop costs clang's build 7 % of the floats.
template <class V, class F>
inline void for_each_sum(V (&sums)[kAccumulators], const F& f) {
    unrolled<kUnroll>([&](auto) ONEBIT_INLINE_LAMBDA {
        unrolled<kAccumulators>([&](auto i) ONEBIT_INLINE_LAMBDA { f(sums[i]); });
    });
}

uint64_t int8_macs(uint64_t count, uint64_t* sink) {
    Bytes w = bytes_all(3), a = bytes_all(5);
    Ints sums[kAccumulators];
    for (Ints& sum : sums) sum = ints_zero();
    constexpr uint64_t kEach = uint64_t{kBytes} * kAccumulators * kUnroll;
    const uint64_t rounds = (count + kEach - 1) / kEach;
    for (uint64_t round = 0; round < rounds; round++) {
        for_each_sum(sums, [&](Ints& sum) ONEBIT_INLINE_LAMBDA {
            opaque(a);
            Ints next = dot(sum, w, a);
            opaque(next);  // or additions would be regrouped, with more sums than registers
            sum = next;
        });
    }
    for (const Ints& sum : sums) *sink += fold(sum);
    return rounds * kEach;
}

uint64_t f32_macs(uint64_t count, uint64_t* sink) {
    Floats x = floats_all(0.5f), y = floats_all(0.25f);
    Floats sums[kAccumulators];
    for (Floats& sum : sums) sum = floats_zero();
    constexpr uint64_t kEach = uint64_t{kBytes / 4} * kAccumulators * kUnroll;
    const uint64_t rounds = (count + kEach - 1) / kEach;
    for (uint64_t round = 0; round < rounds; round++) {
        for_each_sum(sums, [&](Floats& sum) ONEBIT_INLINE_LAMBDA {
            opaque(x);
            Floats next = floats_fma(x, y, sum);
            opaque(next);
            sum = next;
        });
    }
    for (Floats sum : sums) {
        Ints bits;
        memcpy(&bits, &sum, sizeof bits);
        *sink += fold(bits);
    }
    return rounds * kEach;
}
