#include "math.h"

#include <bit>

#include <string.h>

// Only + - * / on doubles and bit operations: IEEE 754 fixes the result of each of these, so every machine gets the
// same bytes. Nothing here may be contracted into fused multiply-adds (the build says -ffp-contract=off).

namespace onebit {
namespace {

uint64_t bits_of(double x) {
    uint64_t b;
    memcpy(&b, &x, 8);
    return b;
}
double double_of(uint64_t b) {
    double x;
    memcpy(&x, &b, 8);
    return x;
}
uint32_t bits_of(float x) {
    uint32_t b;
    memcpy(&b, &x, 4);
    return b;
}
float float_of(uint32_t b) {
    float x;
    memcpy(&x, &b, 4);
    return x;
}

constexpr uint64_t kInfinityBits = 0x7ff0000000000000u;
constexpr uint64_t kNanBits = 0x7ff8000000000000u;

constexpr double kLn2High = 0x1.62e42fee00000p-1;  // 33 bits: k * kLn2High is exact for |k| < 2^20
constexpr double kLn2Low = 0x1.a39ef35793c76p-33;

// x rounded to the nearest integer, ties to even, for |x| < 2^51.
double round_even(double x) {
    constexpr double kShift = 0x1.8p52;
    // The volatile keeps a compiler with a laxer floating-point mode from folding the pair away.
    volatile double shifted = x + kShift;
    return shifted - kShift;
}

// 2^k as a double, for -1022 <= k <= 1023.
double power_of_two(int k) { return double_of(static_cast<uint64_t>(1023 + k) << 52); }

}  // namespace

double exp_exact(double x) {
    if (x != x) return x;
    if (x > 709.79) return double_of(kInfinityBits);
    if (x < -745.2) return 0.0;
    const double k = round_even(x * 0x1.71547652b82fep+0);
    const double r = (x - k * kLn2High) - k * kLn2Low;
    // The Taylor polynomial to r^13 / 13!, |r| <= 0.35: what is left out is 5e-18 of the result.
    double factorial = 6227020800.0;
    double p = 0.0;
    for (int i = 13; i >= 2; i--) {
        p = p * r + 1.0 / factorial;
        factorial /= i;
    }
    p = p * r * r + r + 1.0;
    // In two steps, so that 2^1024 does not overflow early and a subnormal result is rounded once.
    const int n = static_cast<int>(k);
    const int half = n / 2;
    return p * power_of_two(half) * power_of_two(n - half);
}

double log_exact(double x) {
    if (x != x || x == double_of(kInfinityBits)) return x;
    if (x == 0.0) return -double_of(kInfinityBits);
    if (x < 0.0) return double_of(kNanBits);
    int exponent = -1023;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        exponent -= 54;
    }
    const uint64_t b = bits_of(x);
    exponent += static_cast<int>(b >> 52);
    double m = double_of((b & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    if (m > 0x1.6a09e667f3bcdp+0) {  // sqrt(2): m is brought into [sqrt(1/2), sqrt(2)]
        m *= 0.5;
        exponent++;
    }
    // log(m) = 2 atanh(s) = 2 (s + s^3/3 + s^5/5 + ...), |s| <= 0.1716: after s^23 2e-20 is left out.
    const double f = m - 1.0;
    const double s = f / (2.0 + f);
    const double z = s * s;
    double p = 0.0;
    for (int i = 23; i >= 3; i -= 2) p = (p + 1.0 / i) * z;
    const double log_m = 2.0 * s + 2.0 * s * p;
    const double e = exponent;
    return e * kLn2High + (e * kLn2Low + log_m);
}

double pow_exact(double base, double exponent) {
    if (exponent == 0.0 || base == 1.0) return 1.0;
    return exp_exact(exponent * log_exact(base));
}

void sincos_exact(double x, double* sine, double* cosine) {
    if (!(x >= -0x1p31 && x <= 0x1p31)) {
        *sine = *cosine = double_of(kNanBits);
        return;
    }
    // r = x - k * pi/2. pi/2 is split into parts of 22 bits: k has at most 31, so that each k * part is exact; so are
    // the first two differences. The third one's rounding error is kept, for the x that lie next to a multiple of pi/2.
    const double k = round_even(x * 0x1.45f306dc9c883p-1);
    const double a = (x - k * 0x1.921fb00000000p+0) - k * 0x1.5110b00000000p-22;
    const double third = k * 0x1.1846980000000p-44;
    const double high = a - third;
    const double back = high - a;
    const double error = (a - (high - back)) - (third + back);
    const double r = high + (error - k * 0x1.3198a2e037073p-69);
    // Taylor polynomials, |r| <= 0.79: what is left out is below 1e-17.
    const double z = r * r;
    double s = 0.0, c = 0.0;
    for (int i = 18; i >= 2; i -= 2) {
        s = (s + 1.0) * (-z / (i * (i + 1.0)));
        c = (c + 1.0) * (-z / (i * (i - 1.0)));
    }
    s = r + r * s;
    c = 1.0 + c;
    const int64_t quadrant = static_cast<int64_t>(k) & 3;
    *sine = quadrant == 0 ? s : quadrant == 1 ? c : quadrant == 2 ? -s : -c;
    *cosine = quadrant == 0 ? c : quadrant == 1 ? -s : quadrant == 2 ? -c : s;
}

float f32_from_f16(uint16_t bits) {
    const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
    const uint32_t magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) {  // infinity; NaN keeps its payload and becomes quiet, as in hardware
        const uint32_t quiet = magnitude > 0x7c00u ? 0x00400000u : 0;
        return float_of(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13 | quiet);
    }
    // As a float the bits mean 2^-112 times the value, subnormals included: one exact multiplication.
    const float value = float_of(magnitude << 13) * 0x1p112f;
    return float_of(bits_of(value) | sign);
}

// Block by block without a branch, so that the test vectorises.
size_t first_not_finite(const float* x, size_t n) {
    constexpr size_t kBlock = 4096;
    const auto is_bad = [&](size_t i) { return (std::bit_cast<uint32_t>(x[i]) & 0x7f800000u) == 0x7f800000u; };
    for (size_t start = 0; start < n; start += kBlock) {
        const size_t end = start + kBlock < n ? start + kBlock : n;
        uint32_t bad = 0;
        for (size_t i = start; i < end; ++i) bad |= static_cast<uint32_t>(is_bad(i));
        for (size_t i = start; bad != 0; ++i) {
            if (is_bad(i)) return i;
        }
    }
    return n;
}

uint16_t f16_from_f32(float x) {
    const uint32_t b = bits_of(x);
    const uint32_t sign = b >> 16 & 0x8000u;
    const uint32_t magnitude = b & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u | (magnitude >> 13 & 0x3ffu));
    if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and more round to infinity
    if (magnitude < 0x38800000u) {
        // Below 2^-14 a unit of f16 is 2^-24: added to 0.5, whose unit in float is 2^-24 too, the number is rounded
        // by the addition and left in the low bits.
        const float shifted = float_of(magnitude) + 0.5f;
        return static_cast<uint16_t>(sign | (bits_of(shifted) - 0x3f000000u));
    }
    const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
    return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

float f32_from_bf16(uint16_t bits) { return float_of(static_cast<uint32_t>(bits) << 16); }

uint16_t bf16_from_f32(float x) {
    const uint32_t b = bits_of(x);
    if ((b & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(b >> 16 | 0x40u);
    return static_cast<uint16_t>((b + 0x7fffu + (b >> 16 & 1u)) >> 16);
}

}  // namespace onebit
