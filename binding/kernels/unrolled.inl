// Loops whose bounds the compiler knows, unrolled by name. Included first inside the anonymous namespace of every set.
//
// Small arrays of vectors stay in registers only if the loops over them are unrolled and the functions that take them are
// inlined before the compiler decides where they live. Loops with a pragma come too late in some objects (GCC 12: the
// sums of permute_signs.inl went to memory, and 480 Gw/s to 170), so both are asked for by name.
#if defined(_MSC_VER) && !defined(__clang__)
#define ONEBIT_INLINE __forceinline
#define ONEBIT_INLINE_LAMBDA [[msvc::forceinline]]
#else
#define ONEBIT_INLINE inline __attribute__((always_inline))
#define ONEBIT_INLINE_LAMBDA __attribute__((always_inline))
#endif

// Of sums: every row's columns fit (kMaxDim, linear.h).
constexpr int kWholeRows = 1 << 16;

template <int I>
struct Constant {
    static constexpr int value = I;
    constexpr operator int() const { return I; }
};
// Calls f(Constant<0>), ..., f(Constant<N - 1>).
template <int N, int I = 0, class F>
ONEBIT_INLINE void unrolled(const F& f) {
    if constexpr (I < N) {
        f(Constant<I>{});
        unrolled<N, I + 1>(f);
    }
}

template <int Most, class F>
inline void call_with_group(int first, int count, F f) {
    if constexpr (Most > 1) {
        if (count < Most) return call_with_group<Most - 1>(first, count, f);
    }
    f(first, Constant<Most>{});
}
// Calls f(first, Constant<N>) for all of n in the fewest groups of at most Most, as equal as can be.
template <int Most, class F>
inline void by_groups(int n, F f) {
    int first = 0;
    for (int groups = (n + Most - 1) / Most; groups > 0; groups--) {
        const int count = (n - first + groups - 1) / groups;
        call_with_group<Most>(first, count, f);
        first += count;
    }
}
