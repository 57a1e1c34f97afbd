// What the kernel tests share: counting, reproducible random numbers, the sets that can run here, comparison of bits.
//
// ONEBIT_CASES: random cases per family (default 10000). ONEBIT_SEED: run only the case with this seed.
// ONEBIT_HIDDEN: also run this set although the processor does not announce it (a virtual machine may hide one that
// the hardware has; on hardware that has not, the program dies of an illegal instruction).
#pragma once

#include <math.h>
#include <stdarg.h>

#include <vector>

#include "kernels/math.h"
#include "kernels/sets.h"
#include "kernels_guard.h"
#include "plain_tile_set.h"

namespace check {

inline long passed = 0, failed = 0, skipped = 0;

inline void fail(const char* format, ...) {
    failed++;
    if (failed > 30) return;
    va_list arguments;
    va_start(arguments, format);
    printf("FAIL ");
    vprintf(format, arguments);
    printf("\n");
    va_end(arguments);
}

inline void skip(const char* what, const char* why) {
    skipped++;
    printf("skipped %s: %s\n", what, why);
}

// The last lines of every program.
inline int finish() {
    printf("%ld passed, %ld failed, %ld skipped\n", passed, failed, skipped);
    return failed ? 1 : 0;
}

inline long cases() {
    const char* value = getenv("ONEBIT_CASES");
    return value ? atol(value) : 10000;
}

// splitmix64: every seed gives a stream of its own.
class Random {
public:
    explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 0x1234567u) {}
    uint64_t next() {
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    // low .. high, both included
    int between(int low, int high) { return low + static_cast<int>(next() % static_cast<uint64_t>(high - low + 1)); }
    bool chance(int one_in) { return between(1, one_in) == 1; }
    float unit() { return static_cast<float>(static_cast<int32_t>(next() >> 40)) / 8388608.0f - 1.0f; }  // -1 .. 1

private:
    uint64_t state_;
};

// The sets that can run here, scalar first.
inline const std::vector<const onebit::KernelSet*>& sets() {
    static const auto list = [] {
        std::vector<const onebit::KernelSet*> usable;
        int count = 0;
        const onebit::IsaEntry* table = onebit::isa_table(&count);
        for (int i = 0; i < count; i++) {
            const char* why = nullptr;
            if (const onebit::KernelSet* set = onebit::choose_kernels(table[i].name, &why)) usable.push_back(set);
            else if (table[i].state == onebit::IsaState::not_present) skip(table[i].name, "this CPU lacks it");
        }
        if (const onebit::KernelSet* set = plain_tile_set()) usable.push_back(set);
        const char* hidden = getenv("ONEBIT_HIDDEN");
#if defined(ONEBIT_HAS_AVXVNNI) && defined(ONEBIT_HAS_AVX512) && defined(ONEBIT_HAS_AVX512VNNI)
        for (const onebit::KernelSet* set : {&onebit::kernels_avxvnni, &onebit::kernels_avx512vnni}) {
            if (hidden && strcmp(hidden, set->name) == 0) usable.push_back(set);
        }
        // Where the dispatcher gave a set other lookups than its own, those are tested too.
        for (const onebit::KernelSet* set : {&onebit::kernels_avx512, &onebit::kernels_avx512vnni}) {
            const char* why = nullptr;
            const onebit::KernelSet* chosen = onebit::choose_kernels(set->name, &why);
            if (chosen && (chosen->i8.sign != set->i8.sign || chosen->i8_many.sign != set->i8_many.sign)) usable.push_back(set);
        }
#else
        (void)hidden;
#endif
        return usable;
    }();
    return list;
}

// Runs `one(seed)` for every case; a case returns whether it held, and has reported what did not.
template <class F>
void family(const char* name, long count, F one) {
    const char* only = getenv("ONEBIT_SEED");
    const long before = failed;
    for (long seed = 0; seed < count; seed++) {
        if (only && atol(only) != seed) continue;
        if (one(static_cast<uint64_t>(seed))) passed++;
    }
    printf("%-24s %ld cases, %s\n", name, count, failed == before ? "ok" : "FAILED");
    fflush(stdout);
}

inline uint32_t bits(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}
inline float from_bits(uint32_t b) {
    float x;
    memcpy(&x, &b, 4);
    return x;
}
// The same bits, or NaN both: a NaN's sign and payload are no part of the promise.
inline bool same(float a, float b) { return bits(a) == bits(b) || (a != a && b != b); }
inline bool same(int32_t a, int32_t b) { return a == b; }
inline bool same(uint32_t a, uint32_t b) { return a == b; }
inline bool same(uint16_t a, uint16_t b) { return a == b; }
inline bool same(int8_t a, int8_t b) { return a == b; }
inline bool same(uint8_t a, uint8_t b) { return a == b; }

// Compares n values; reports the first difference.
template <class T>
bool equal(const char* family_name, const onebit::KernelSet* set, uint64_t seed, const char* shape, const T* got,
           const T* want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (same(got[i], want[i])) continue;
        fail("%s on %s, seed %llu (%s): [%zu] is %.9g, should be %.9g", family_name, set->name,
             static_cast<unsigned long long>(seed), shape, i, static_cast<double>(got[i]),
             static_cast<double>(want[i]));
        return false;
    }
    return true;
}

inline bool untouched(const char* family_name, const onebit::KernelSet* set, uint64_t seed, const Guarded& buffer) {
    if (buffer.intact()) return true;
    fail("%s on %s, seed %llu: wrote outside its output", family_name, set->name,
         static_cast<unsigned long long>(seed));
    return false;
}

// ---- patterns --------------------------------------------------------------------------------------------
inline void fill_signs(Random& random, uint8_t* p, size_t n) {
    const int kind = random.between(0, 6);
    const size_t hot = static_cast<size_t>(random.next() % (n * 8));
    for (size_t i = 0; i < n; i++) {
        p[i] = kind == 0   ? uint8_t{0}
               : kind == 1 ? uint8_t{0xff}
               : kind == 2 ? uint8_t{0xaa}
               : kind == 3 ? static_cast<uint8_t>(i == hot / 8 ? 1u << hot % 8 : 0u)
                           : static_cast<uint8_t>(random.next());
    }
}

// Values of -most..most.
inline void fill_activations(Random& random, int8_t* q, int n, int padded_n, int most = 127) {
    const int kind = random.between(0, 7);
    const int hot = random.between(0, n - 1);
    for (int i = 0; i < padded_n; i++) {
        const int value = kind == 0   ? most
                          : kind == 1 ? -most
                          : kind == 2 ? (i % 2 ? most : -most)
                          : kind == 3 ? (i == hot ? most : 0)
                          : kind == 4 ? (i % 4 < 2 ? most : -most)
                                      : random.between(-most, most);
        q[i] = static_cast<int8_t>(i < n ? value : 0);
    }
}

inline float some_float(Random& random, int kind, bool hot) {
    const uint32_t word = static_cast<uint32_t>(random.next());
    switch (kind) {
        case 0:
            return from_bits(word & 0x807fffffu);  // subnormal
        case 1:
            return random.chance(2) ? -0.0f : 0.0f;
        case 2:
            return from_bits((word & 0x807fffffu) | static_cast<uint32_t>(random.between(1, 190)) << 23);  // any size
        case 3:
            return hot ? random.unit() : 0.0f;
        case 4:
            return random.chance(20) ? (random.chance(2)   ? INFINITY
                                        : random.chance(2) ? -INFINITY
                                                           : NAN)
                                     : random.unit();
        case 5:
            return random.chance(2) ? random.unit() * 1e30f : random.unit() * 1e-30f;
        default:
            return random.unit() * 4.0f;
    }
}

// n values and the zero padding.
inline void fill_floats(Random& random, float* x, int n, int64_t padded_n) {
    const int kind = random.between(0, 12);
    const int hot = random.between(0, n - 1);
    for (int i = 0; i < padded_n; i++) x[i] = i < n ? some_float(random, kind, i == hot) : 0.0f;
}

// A size: mostly small, every residue, sometimes beyond several vectors.
inline int some_size(Random& random, int large) {
    return random.chance(20) ? random.between(1, large) : random.between(1, 200);
}

// The tree of the contract over 16 lanes.
inline float tree(float (&lane)[16]) {
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < step; i++) lane[i] = lane[i] + lane[i + step];
    }
    return lane[0];
}

}  // namespace check
