// Kernels over one row: bits against plain loops written here, equal bits on every set, and their distance from
// double-precision references; conversions over all of their values; the checksum; and the mathematics without a C
// library.
#include <algorithm>
#include <string>

#include "kernels_checks.h"

using namespace onebit;
using check::Random;

namespace {

Guarded first(1u << 20), second(1u << 20), third(1u << 20), result(1u << 20);

float lanes16_squares(const float* x, int n) {
    float lane[16] = {};
    for (int i = 0; i < n; i++) lane[i % 16] = fmaf(x[i], x[i], lane[i % 16]);
    return check::tree(lane);
}

struct Row {
    Random random;
    int n;
    bool at_end;
    std::string shape;
    explicit Row(uint64_t seed) : random(seed) {
        n = check::some_size(random, 5000);
        at_end = random.chance(2);
        shape = "n " + std::to_string(n);
    }
    float* floats(Guarded& buffer) {
        float* x = buffer.place<float>(static_cast<size_t>(n), at_end);
        check::fill_floats(random, x, n, n);
        return x;
    }
};

// Runs on every set; `want` null means the first set's result is the reference.
template <class T, class Run>
bool same_everywhere(const char* name, uint64_t seed, const Row& row, size_t count, std::vector<T> want, Run run) {
    for (const KernelSet* set : check::sets()) {
        T* out = result.place<T>(count, row.at_end);
        run(set, out);
        if (!check::untouched(name, set, seed, result)) return false;
        if (want.empty()) want.assign(out, out + count);
        if (!check::equal(name, set, seed, row.shape.c_str(), out, want.data(), count)) return false;
    }
    return true;
}

bool quantize_case(uint64_t seed) {
    Row row(seed);
    const float* x = row.floats(first);
    const float* g = row.random.chance(3) ? nullptr : row.floats(second);
    float largest = 0;
    bool finite = true;
    std::vector<float> v;
    for (int i = 0; i < row.n; i++) {
        v.push_back(g ? x[i] * g[i] : x[i]);
        finite = finite && isfinite(v.back());
        largest = fabsf(v.back()) > largest ? fabsf(v.back()) : largest;
    }
    const size_t count = static_cast<size_t>(padded(row.n, 64));
    std::vector<int8_t> want(count);
    if (finite && largest >= 0x1p-100f) {
        for (size_t i = 0; i < v.size(); i++) want[i] = static_cast<int8_t>(nearbyintf(v[i] * (127.0f / largest)));
    }
    const float scale = largest < 0x1p-100f ? 0.0f : largest / 127.0f;
    bool right = true;
    return same_everywhere<int8_t>("quantize", seed, row, count, want,
                                   [&](const KernelSet* set, int8_t* q) {
                                       const float got = set->quantize(q, x, g, row.n);
                                       if (finite ? !check::same(got, scale) : isfinite(got)) {
                                           check::fail("quantize on %s, seed %llu: scale %.9g, should be %.9g",
                                                       set->name, static_cast<unsigned long long>(seed),
                                                       static_cast<double>(got), static_cast<double>(scale));
                                           right = false;
                                       }
                                   }) &&
           right;
}

// lanes16 of fma(a, b).
float lanes_dot(const std::vector<float>& a, const std::vector<float>& b) {
    float lane[16] = {};
    for (size_t i = 0; i < a.size(); i++) lane[i % 16] = fmaf(a[i], b[i], lane[i % 16]);
    return check::tree(lane);
}

bool quantize4_case(uint64_t seed) {
    Row row(seed);
    const float* x = row.floats(first);
    const float* g = row.random.chance(3) ? nullptr : row.floats(second);
    float largest = 0;
    bool finite = true;
    for (int i = 0; i < row.n; i++) {
        const float v = g ? x[i] * g[i] : x[i];
        finite = finite && isfinite(v);
        largest = fabsf(v) > largest ? fabsf(v) : largest;
    }
    const size_t count = static_cast<size_t>(padded(row.n, 64));
    std::vector<int8_t> want(count);
    float scale = 0;
    if (finite && largest >= 0x1p-100f) {
        std::vector<float> v(static_cast<size_t>(row.n)), r(v.size());
        for (int i = 0; i < row.n; i++) v[static_cast<size_t>(i)] = (g ? x[i] * g[i] : x[i]) * (7.0f / largest);
        float most = 0;
        for (const float factor : {1.0f, 1.0f / 0.85f, 1.0f / 0.7225f, 1.0f / 0.614125f}) {
            for (size_t i = 0; i < v.size(); i++) r[i] = fmaxf(fminf(nearbyintf(v[i] * factor), 7.0f), -7.0f);
            const float a = lanes_dot(v, r), b = lanes_dot(r, r);
            if (a * a / b <= most) continue;
            most = a * a / b;
            scale = largest / 7.0f * (a / b);
            for (size_t i = 0; i < v.size(); i++) want[i] = static_cast<int8_t>(r[i]);
        }
    }
    bool right = true;
    return same_everywhere<int8_t>("quantize4", seed, row, count, want,
                                   [&](const KernelSet* set, int8_t* q) {
                                       const float got = set->quantize4(q, x, g, row.n);
                                       if (finite ? !check::same(got, scale) : isfinite(got)) {
                                           check::fail("quantize4 on %s, seed %llu: scale %.9g, should be %.9g",
                                                       set->name, static_cast<unsigned long long>(seed),
                                                       static_cast<double>(got), static_cast<double>(scale));
                                           right = false;
                                       }
                                   }) &&
           right;
}

bool elementwise_case(uint64_t seed) {
    Row row(seed);
    const size_t n = static_cast<size_t>(row.n);
    const float *x = row.floats(first), *g = row.floats(second);
    int32_t* acc = third.place<int32_t>(n, row.at_end);
    for (size_t i = 0; i < n; i++) acc[i] = static_cast<int32_t>(static_cast<uint32_t>(row.random.next()));
    const float scale = row.random.unit();
    const float* h = row.random.chance(2) ? g : nullptr;
    // The second plane only has to be other numbers: the same sums, from the far end.
    std::vector<int32_t> fine(acc, acc + n);
    std::reverse(fine.begin(), fine.end());
    const float scales[2] = {scale, scale / 254.0f};
    std::vector<float> product(n), scaled_ints(n), two_planes(n), scaled(n), sum(n);
    for (size_t i = 0; i < n; i++) {
        product[i] = x[i] * g[i];
        sum[i] = x[i] + g[i];
        const float a = static_cast<float>(acc[i]) * scale, b = x[i] * scale;
        scaled_ints[i] = h ? a * h[i] : a;
        const float both = a + static_cast<float>(fine[i]) * scales[1];
        two_planes[i] = h ? both * h[i] : both;
        scaled[i] = h ? b * h[i] : b;
    }
    return same_everywhere<float>("multiply", seed, row, n, product,
                                  [&](const KernelSet* s, float* out) { s->multiply(out, x, g, row.n); }) &&
           same_everywhere<float>("scale_i32", seed, row, n, scaled_ints,
                                  [&](const KernelSet* s, float* out) { s->scale_i32(out, acc, scale, h, row.n); }) &&
           same_everywhere<float>(
               "scale_planes", seed, row, n, two_planes,
               [&](const KernelSet* s, float* out) { s->scale_planes(out, acc, fine.data(), scales, h, row.n); }) &&
           same_everywhere<float>("scale_f32", seed, row, n, scaled,
                                  [&](const KernelSet* s, float* out) { s->scale_f32(out, x, scale, h, row.n); }) &&
           same_everywhere<float>("add", seed, row, n, sum, [&](const KernelSet* s, float* out) {
               memcpy(out, x, n * 4);
               s->add(out, g, row.n);
           });
}

bool add_column_case(uint64_t seed) {
    Row row(seed);
    const int rows = row.n, cols = check::some_size(row.random, 5000), tokens = row.random.between(1, 6);
    const float *y = row.floats(first), *u = row.floats(second);
    std::vector<float> v(static_cast<size_t>(cols)), want;
    float* x = third.place<float>(v.size() * static_cast<size_t>(tokens), row.at_end);
    for (float& value : v) value = row.random.unit();
    std::vector<const float*> inputs;
    for (int t = 0; t < tokens; t++) {
        float* const token = x + t * cols;
        for (int c = 0; c < cols; c++) token[c] = row.random.unit();
        inputs.push_back(token);
        const float along = lanes_dot(v, std::vector<float>(token, token + cols));
        for (int r = 0; r < rows; r++) want.push_back(fmaf(along, u[r], y[r]));
    }
    return same_everywhere<float>("add_column", seed, row, want.size(), want, [&](const KernelSet* s, float* out) {
        std::vector<float*> outputs;
        for (int t = 0; t < tokens; t++) {
            outputs.push_back(out + t * rows);
            memcpy(outputs.back(), y, static_cast<size_t>(rows) * 4);
        }
        s->add_column(outputs.data(), inputs.data(), tokens, u, rows, v.data(), cols);
    });
}

bool rmsnorm_case(uint64_t seed) {
    Row row(seed);
    const size_t n = static_cast<size_t>(row.n);
    const float *x = row.floats(first), *w = row.floats(second);
    const float eps = row.random.chance(2) ? 1e-5f : 1e-6f, count = static_cast<float>(row.n);
    std::vector<float> rms(n);
    const float inverse = 1.0f / sqrtf(lanes16_squares(x, row.n) / count + eps);
    for (size_t i = 0; i < n; i++) rms[i] = x[i] * inverse * w[i];
    return same_everywhere<float>("rmsnorm", seed, row, n, rms,
                                  [&](const KernelSet* s, float* out) { s->rmsnorm(out, x, w, row.n, eps); });
}

void layernorm_row(float* x, int n, float eps) {
    const float count = static_cast<float>(n);
    float lane[16] = {};
    for (int i = 0; i < n; i++) lane[i % 16] += x[i];
    const float mean = check::tree(lane) / count;
    for (int i = 0; i < n; i++) x[i] -= mean;
    const float by = 1.0f / sqrtf(lanes16_squares(x, n) / count + eps);
    for (int i = 0; i < n; i++) x[i] *= by;
}

bool layernorm_case(uint64_t seed) {
    Row row(seed);
    const int n_rows = row.random.between(1, 6);
    const size_t n = static_cast<size_t>(row.n), all = n * static_cast<size_t>(n_rows);
    const float* x = row.floats(first);
    const float eps = row.random.chance(2) ? 1e-5f : 1e-6f;
    std::vector<float> rows, want;
    for (size_t i = 0; i < all; i++) rows.push_back(x[(i + i / n) % n] * static_cast<float>(1 + i / n));
    want = rows;
    for (int r = 0; r < n_rows; r++) layernorm_row(want.data() + static_cast<size_t>(r) * n, row.n, eps);
    return same_everywhere<float>("layernorm", seed, row, all, want, [&](const KernelSet* s, float* out) {
        memcpy(out, rows.data(), all * sizeof(float));
        float* begin[6];
        for (int r = 0; r < n_rows; r++) begin[r] = out + static_cast<size_t>(r) * n;
        s->layernorm(begin, n_rows, row.n, eps);
    });
}

bool rope_case(uint64_t seed) {
    Row row(seed);
    row.n = row.random.between(1, 80) * 2;
    const bool interleaved = row.random.chance(2);
    const size_t n = static_cast<size_t>(row.n), half = n / 2;
    const float* x = row.floats(first);
    float *c = second.place<float>(half, row.at_end), *s = third.place<float>(half, row.at_end);
    std::vector<float> want(n);
    for (size_t i = 0; i < half; i++) {
        c[i] = row.random.unit();
        s[i] = row.random.unit();
        const size_t a = interleaved ? 2 * i : i, b = interleaved ? 2 * i + 1 : i + half;
        const float ac = x[a] * c[i], bs = x[b] * s[i], bc = x[b] * c[i], as = x[a] * s[i];
        want[a] = ac - bs;
        want[b] = bc + as;
    }
    return same_everywhere<float>("rope", seed, row, n, want, [&](const KernelSet* set, float* out) {
        memcpy(out, x, n * 4);
        set->rope(out, c, s, row.n, interleaved);
    });
}

// H (s x) by definition, in double: every element is a sum over its whole block.
bool near_definition(const float* x, const std::vector<float>& s, const float* got, int n, int block) {
    for (int i = 0; i < n; i++) {
        const int base = i / block * block;
        double want = 0, size = 0;
        for (int j = 0; j < block; j++) {
            const double value = static_cast<double>(x[base + j]) * static_cast<double>(s[static_cast<size_t>(base + j)]);
            bool odd = false;
            for (int bits = (i - base) & j; bits != 0; bits &= bits - 1) odd = !odd;
            want += odd ? -value : value;
            size += value * value;
        }
        if (!isfinite(want) || !isfinite(size) || size > 1e70) continue;
        const double by = sqrt(static_cast<double>(block)), error = fabs(got[i] - want / by);
        if (error > 4e-7 * sqrt(size) * log2(block) + 3e-45 * block) return false;
    }
    return true;
}

// Every block size in turn. The definition takes block^2 steps, so that large blocks are compared with it seldom.
bool hadamard_case(uint64_t seed) {
    Row row(seed);
    const int block = 1 << (1 + seed % 13);
    row.n = block * row.random.between(1, block <= 64 ? 200 / block + 1 : block <= 512 ? 4 : 2);
    row.shape = "n " + std::to_string(row.n) + ", block " + std::to_string(block);
    const size_t n = static_cast<size_t>(row.n);
    const float* x = row.floats(first);
    uint8_t* bits = row.random.chance(4) ? nullptr : second.place<uint8_t>(static_cast<size_t>(padded(row.n, 16) / 8), row.at_end);
    if (bits) check::fill_signs(row.random, bits, static_cast<size_t>(padded(row.n, 16) / 8));
    std::vector<float> signs(n, 1.0f), want(n);
    for (size_t i = 0; i < n; i++) {
        if (bits && (bits[i / 8] >> (i % 8) & 1) != 0) signs[i] = -1.0f;
        want[i] = x[i] * signs[i];
    }
    for (size_t h = 1; h < static_cast<size_t>(block); h *= 2) {
        for (size_t i = 0; i < n; i++) {
            if ((i & h) != 0) continue;
            const float a = want[i], b = want[i + h];
            want[i] = a + b;
            want[i + h] = a - b;
        }
    }
    for (float& value : want) value *= 1.0f / sqrtf(static_cast<float>(block));
    bool near = true;
    const bool defined = block <= 128 || row.random.chance(block <= 1024 ? 20 : 200);
    return same_everywhere<float>("hadamard", seed, row, n, want,
                                  [&](const KernelSet* set, float* out) {
                                      set->hadamard(out, x, bits, row.n, block);
                                      near = near && (!defined || near_definition(x, signs, out, row.n, block));
                                  }) &&
           same_everywhere<float>("hadamard in place", seed, row, n, want,
                                  [&](const KernelSet* set, float* out) {
                                      memcpy(out, x, n * sizeof(float));
                                      set->hadamard(out, out, bits, row.n, block);
                                  }) &&
           (near || (check::fail("hadamard, seed %llu (%s): far from its definition", static_cast<unsigned long long>(seed),
                                 row.shape.c_str()),
                     false));
}

double activated(double x, Activation activation) {
    const double positive = x > 0 ? x : 0;
    switch (activation) {
        case Activation::silu: return x / (1 + exp(-x));
        case Activation::relu: return positive;
        case Activation::relu2: return positive * positive;
        case Activation::gelu: return 0.5 * x * erfc(-x / sqrt(2.0));
        case Activation::gelu_tanh: return x / (1 + exp(-2 * 0.7978845608028654 * (x + 0.044715 * x * x * x)));
    }
    return 0;
}

bool activate_case(uint64_t seed) {
    Row row(seed);
    const size_t n = static_cast<size_t>(row.n);
    const auto activation = static_cast<Activation>(row.random.between(0, 4));
    const float *x = row.floats(first), *up = row.random.chance(3) ? nullptr : row.floats(second);
    bool near = true;
    return same_everywhere<float>(
               "activate", seed, row, n, {},
               [&](const KernelSet* set, float* out) {
                   set->activate(out, x, up, row.n, activation);
                   for (size_t i = 0; i < n && near; i++) {
                       const float factor = up ? up[i] : 1.0f;
                       // relu2 of what is large overflows in floats only, and gelu_tanh's cube does.
                       if (!(fabsf(x[i]) < 80) || !(fabsf(factor) < 1e20f)) continue;
                       const double want = activated(x[i], activation) * factor;
                       // gelu's erf is right to 1.5e-7, of |x| / 2; subnormal quotients are rounded as such.
                       const double erf_error = activation == Activation::gelu ? 1e-7 * fabs(x[i]) * fabs(factor) : 0;
                       // gelu_tanh's exponent is rounded, and what it is large by shows in the result.
                       const double cube = activation == Activation::gelu_tanh ? fabs(x[i] + 0.044715 * x[i] * x[i] * x[i]) : 0;
                       if (1.6 * cube > 80) continue;
                       const double relative = 1e-6 + 4e-7 * cube;
                       near = fabs(out[i] - want) <= relative * fabs(want) + erf_error + 3e-45 * (1 + fabsf(factor));
                       if (!near)
                           check::fail("activate on %s, seed %llu, activation %d: %.9g of %.9g, should be %.9g", set->name,
                                       static_cast<unsigned long long>(seed), static_cast<int>(activation),
                                       static_cast<double>(out[i]), static_cast<double>(x[i]), want);
                   }
               }) &&
           near;
}

bool gate_case(uint64_t seed) {
    Row row(seed);
    const size_t n = static_cast<size_t>(row.n);
    const float *x = row.floats(first), *gate = row.floats(second);
    bool near = true;
    return same_everywhere<float>(
               "gate_by", seed, row, n, {},
               [&](const KernelSet* set, float* out) {
                   memcpy(out, x, n * 4);
                   set->gate_by(out, gate, row.n);
                   for (size_t i = 0; i < n && near; i++) {
                       if (!(fabsf(gate[i]) < 80) || !(fabsf(x[i]) < 1e20f)) continue;
                       const double want = x[i] / (1 + exp(-static_cast<double>(gate[i])));
                       near = fabs(out[i] - want) <= 5e-7 * fabs(want) + 3e-45;
                       if (!near)
                           check::fail("gate_by on %s, seed %llu: %.9g, should be %.9g", set->name,
                                       static_cast<unsigned long long>(seed), static_cast<double>(out[i]), want);
                   }
               }) &&
           near;
}

bool max_sum_exp_case(uint64_t seed) {
    Row row(seed);
    const float* x = row.floats(first);
    float largest = -INFINITY;
    bool nan = false;
    double sum = 0;
    for (int i = 0; i < row.n; i++) {
        nan = nan || isnan(x[i]);
        largest = x[i] > largest ? x[i] : largest;
    }
    for (int i = 0; i < row.n; i++) sum += exp(static_cast<double>(x[i]) - largest);
    bool near = true;
    return same_everywhere<float>("max_sum_exp", seed, row, 2, {},
                                  [&](const KernelSet* set, float* out) {
                                      set->max_sum_exp(out, out + 1, x, row.n);
                                      near = near && (nan ? isnan(out[0]) : out[0] == largest) &&
                                             (sum != sum || fabs(out[1] - sum) <= (2e-6 + 4e-9 * row.n) * sum);
                                      if (!near)
                                          check::fail("max_sum_exp on %s, seed %llu: %.9g and %.9g", set->name,
                                                      static_cast<unsigned long long>(seed),
                                                      static_cast<double>(out[0]), static_cast<double>(out[1]));
                                  }) &&
           near;
}

bool crc_case(uint64_t seed) {
    Random random(seed);
    Row row(seed);
    const size_t n = static_cast<size_t>(random.chance(8) ? random.between(0, 60000) : random.between(0, 100));
    uint8_t* data = first.place<uint8_t>(n, row.at_end);
    uint32_t want = ~0u;
    for (size_t i = 0; i < n; i++) {
        data[i] = static_cast<uint8_t>(random.next());
        want ^= data[i];
        for (int bit = 0; bit < 8; bit++) want = (want >> 1) ^ ((want & 1u) ? 0x82f63b78u : 0u);
    }
    const size_t cut = n ? random.next() % n : 0;
    return same_everywhere<uint32_t>("crc32c", seed, row, 2, {~want, ~want}, [&](const KernelSet* set, uint32_t* out) {
        out[0] = set->crc32c(0, data, n);
        out[1] = set->crc32c(set->crc32c(0, data, cut), data + cut, n - cut);
    });
}

void expect(bool held, const char* what, const char* where) {
    if (held) {
        check::passed++;
    } else {
        check::fail("%s (%s)", what, where);
    }
}

// All 65536 halves to float and back, and floats around every rounding boundary.
void conversions(const KernelSet* set) {
    bool up = true, back = true, boundary = true, tails = true;
    std::vector<uint16_t> halves(65536), returned(65536);
    for (size_t i = 0; i < 65536; i++) halves[i] = static_cast<uint16_t>(i);
    std::vector<float> floats(65536), around;
    set->f16_to_f32(floats.data(), halves.data(), 65536);
    set->f32_to_f16(returned.data(), floats.data(), 65536);
    for (size_t i = 0; i < 65536; i++) {
        const int exponent = static_cast<int>(i >> 10 & 31), mantissa = static_cast<int>(i & 1023);
        const double value = ldexp(exponent ? 1024 + mantissa : mantissa, (exponent ? exponent : 1) - 25);
        const bool nan = exponent == 31 && mantissa, infinite = exponent == 31 && !mantissa;
        const float f = floats[i];
        up = up &&
             (nan        ? isnan(f)
              : infinite ? isinf(f)
                         : fabs(static_cast<double>(f)) == value) &&
             (nan || signbit(f) == (i >= 32768));
        up = up && check::bits(f) == check::bits(f32_from_f16(static_cast<uint16_t>(i)));
        back = back && returned[i] == (nan ? (i | 0x200) : i);  // a signalling NaN becomes quiet
    }
    for (size_t i = 0; i + 1 < 0x7c00; i++) {
        const float middle = (floats[i] + floats[i + 1]) / 2;
        around.push_back(middle);
        around.push_back(nextafterf(middle, 0));
        around.push_back(nextafterf(middle, INFINITY));
    }
    for (float f :
         {65504.0f, 65519.996f, 65520.0f, 65536.0f, 1e30f, INFINITY, 0x1p-25f, 0x1.000002p-25f, 0x1p-149f, -0.0f})
        around.push_back(f);
    std::vector<uint16_t> rounded(around.size());
    set->f32_to_f16(rounded.data(), around.data(), static_cast<int>(around.size()));
    for (size_t i = 0; i < 3 * 0x7bff; i++) {
        const size_t below = i / 3, kind = i % 3;
        const size_t want = kind == 1 ? below : kind == 2 ? below + 1 : below + below % 2;
        boundary = boundary && rounded[i] == want;
    }
    for (size_t i = 0; i < around.size(); i++) boundary = boundary && rounded[i] == f16_from_f32(around[i]);
    for (int n = 0; n < 40; n++) {
        uint16_t* h = first.place<uint16_t>(static_cast<size_t>(n), n % 2 == 0);
        float* f = second.place<float>(static_cast<size_t>(n), n % 2 == 0);
        for (int i = 0; i < n; i++) h[i] = static_cast<uint16_t>(i * 700);
        set->f16_to_f32(f, h, n);
        tails = tails && second.intact();
        for (int i = 0; i < n; i++) tails = tails && check::same(f[i], f32_from_f16(h[i]));
        uint16_t* again = third.place<uint16_t>(static_cast<size_t>(n), n % 2 == 0);
        set->f32_to_f16(again, f, n);
        tails = tails && third.intact() && (n == 0 || memcmp(again, h, static_cast<size_t>(n) * 2) == 0);
    }
    expect(up, "every f16 becomes the right float", set->name);
    expect(back, "every f16 comes back", set->name);
    expect(boundary, "floats round to the nearest f16, ties to even", set->name);
    expect(tails, "conversions keep within their rows", set->name);
}

// exp as softmax uses it: max_sum_exp of (0, x) is 1 + exp(x), and silu's denominator; here by sum over one value.
void exponential(const KernelSet* set) {
    double worst = 0;
    for (int i = 0; i < 2000000; i++) {
        const float x = -static_cast<float>(i) * 5.2e-5f;  // 0 .. -104
        const float pair[2] = {0.0f, x};
        float max, sum;
        set->max_sum_exp(&max, &sum, pair, 2);
        const double want = 1 + exp(static_cast<double>(x));
        const double ulp = fabs(sum - want) / 0x1p-23;
        worst = ulp > worst ? ulp : worst;
    }
    expect(worst <= 1.5, "1 + exp(x) is right to 1.5 units", set->name);
    // An attention over two positions of one element gives exp(x) / (1 + exp(x)) times v: with v = (0, 1) and x very
    // negative that is exp(x) itself. What would be no normal float is 0: it takes long, and adds nothing.
    double worst_small = 0;
    bool zero = true;
    for (int i = 0; i < 20000; i++) {
        const float x = -20.0f - static_cast<float>(i) * 0.0042f;
        const float q = 1.0f, k[kKeyBlock] = {0.0f, x}, v[2] = {0.0f, 1.0f};
        float out, scratch[32];
        AttendQuery query{&q, &out, 0, 2};
        set->attend(&query, 1, {k, v, DType::f32, size_t{kKvChunk} * sizeof(float)}, 1, 1.0f, scratch, nullptr);
        if (x < -87.33f) {
            zero = zero && out == 0;
            continue;
        }
        const double want = exp(static_cast<double>(x));
        worst_small = std::max(worst_small, fabs(out - want) / ldexp(1.0, ilogb(want) - 23));
    }
    expect(worst_small <= 2.0, "exp(x) is right to 2 units as far as it is a normal float", set->name);
    expect(zero, "exp(x) below the normal floats is 0", set->name);
    printf("  exp on %s: %.2f units at most\n", set->name, worst_small);
}

double units(double got, long double want) {
    const float rounded = static_cast<float>(got);
    if (want != want) return rounded != rounded ? 0 : 1e9;
    const float right = static_cast<float>(want);
    if (rounded == right) return 0;
    if (isinf(right) || isinf(rounded)) return 1e9;
    const double unit = fabsf(right) < 0x1p-126f ? 0x1p-149 : ldexp(1.0, ilogbf(right) - 23);
    return fabs(static_cast<double>(rounded) - static_cast<double>(right)) / unit;
}

void mathematics() {
    Random random(7);
    double worst_exp = 0, worst_log = 0, worst_pow = 0, worst_sin = 0;
    for (int i = 0; i < 300000; i++) {
        const double x = random.unit() * 800.0;
        const double positive =
            static_cast<double>(check::from_bits(static_cast<uint32_t>(random.next() % 0x7f800000u)));
        worst_exp = fmax(worst_exp, units(exp_exact(x), expl(x)));
        if (positive > 0) worst_log = fmax(worst_log, units(log_exact(positive), logl(positive)));
        const double near_one = 1 + random.unit() * 0.01;
        worst_log = fmax(worst_log, units(log_exact(near_one), logl(near_one)));
        const double base = 1 + (random.unit() + 1) * 5e6, exponent = random.unit();
        worst_pow = fmax(worst_pow, units(pow_exact(base, exponent), powl(base, exponent)));
        const double angle = i % 3 == 0   ? random.unit() * 2147483648.0
                             : i % 3 == 1 ? random.between(0, 1 << 20) * pow_exact(10000.0, -(random.unit() + 1) / 2)
                                          : static_cast<double>(random.between(0, 1000000000)) * 1.5707963267948966;
        double s, c;
        sincos_exact(angle, &s, &c);
        worst_sin = fmax(worst_sin, fmax(units(s, sinl(angle)), units(c, cosl(angle))));
    }
    printf("  units of float: exp %.1f, log %.1f, pow %.1f, sincos %.1f\n", worst_exp, worst_log, worst_pow, worst_sin);
    expect(worst_exp <= 1 && worst_log <= 1 && worst_pow <= 1 && worst_sin <= 1, "within one unit of float",
           "math.cpp");
    expect(exp_exact(0) == 1 && exp_exact(-INFINITY) == 0 && exp_exact(INFINITY) == INFINITY && isnan(exp_exact(NAN)),
           "exp's special cases", "math.cpp");
    expect(exp_exact(-744.5) == exp(-744.5) && exp_exact(709.78) < INFINITY && exp_exact(710) == INFINITY,
           "exp's range", "math.cpp");
    expect(log_exact(1) == 0 && log_exact(0) == -INFINITY && isnan(log_exact(-1)) && log_exact(INFINITY) == INFINITY &&
               isnan(log_exact(NAN)),
           "log's special cases", "math.cpp");
    expect(pow_exact(2, 0) == 1 && pow_exact(1, INFINITY) == 1 && pow_exact(2, 10) > 1023.999999 &&
               pow_exact(2, 10) < 1024.000001,
           "pow", "math.cpp");
    double s, c;
    sincos_exact(0, &s, &c);
    expect(s == 0 && c == 1, "sin and cos of 0", "math.cpp");
    bool brain = true;
    for (uint32_t i = 0; i < 65536; i++) {
        const float f = f32_from_bf16(static_cast<uint16_t>(i));
        brain = brain && (isnan(f) ? isnan(f32_from_bf16(bf16_from_f32(f))) : bf16_from_f32(f) == i);
    }
    expect(brain, "every bf16 comes back", "math.cpp");
    expect(bf16_from_f32(check::from_bits(0x3f808000u)) == 0x3f80 &&
               bf16_from_f32(check::from_bits(0x3f818000u)) == 0x3f82 &&
               bf16_from_f32(check::from_bits(0x3f808001u)) == 0x3f81 && bf16_from_f32(3.4e38f) == 0x7f80,
           "bf16 rounds to even", "math.cpp");
}

}  // namespace

int main() {
    mathematics();
    for (const KernelSet* set : check::sets()) {
        conversions(set);
        exponential(set);
        const uint8_t digits[] = {'1', '2', '3', '4', '5', '6', '7', '8', '9'};
        expect(set->crc32c(0, digits, 9) == 0xe3069283u, "the checksum of RFC 3720", set->name);
    }
    check::family("quantize", check::cases(), quantize_case);
    check::family("quantize4", check::cases(), quantize4_case);
    check::family("elementwise", check::cases(), elementwise_case);
    check::family("add_column", check::cases(), add_column_case);
    check::family("rmsnorm", check::cases(), rmsnorm_case);
    check::family("layernorm", check::cases(), layernorm_case);
    check::family("rope", check::cases(), rope_case);
    check::family("hadamard", check::cases(), hadamard_case);
    check::family("activate", check::cases(), activate_case);
    check::family("gate_by", check::cases(), gate_case);
    check::family("max_sum_exp", check::cases(), max_sum_exp_case);
    check::family("crc32c", check::cases(), crc_case);
    return check::finish();
}
