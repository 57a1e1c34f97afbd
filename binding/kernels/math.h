// Scalar mathematics that does not depend on the C library: the same bytes on every machine.
// (libm picks its own variant by CPU, so std::exp and friends differ between machines.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace onebit {

// Each within 1 unit in the last place of float after rounding the result; exact special cases as in IEEE.
double exp_exact(double x);
double log_exact(double x);
double pow_exact(double base, double exponent);  // base > 0
void sincos_exact(double x, double* sine, double* cosine);  // |x| <= 2^31

// The index of the first of n values that is NaN or infinite; n when there is none.
size_t first_not_finite(const float* x, size_t n);

uint16_t f16_from_f32(float x);  // nearest even
float f32_from_f16(uint16_t bits);
uint16_t bf16_from_f32(float x);  // nearest even
float f32_from_bf16(uint16_t bits);

}  // namespace onebit
