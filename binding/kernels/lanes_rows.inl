// Kernels over one row of floats, written once over Lanes (16 floats, one per virtual lane of the contract) and
// compiled into every kernel set. Included inside the set's anonymous namespace, after its *_vectors.inl.
//
// Rows may end inside a vector: the last part is loaded and stored element by element, so that nothing past n is
// touched and two threads may work on neighbouring parts of one row.

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

struct Whole {};  // 16 elements
struct Part {     // the last 1..15 elements
    int n;
};

inline Lanes load(const float* p, Whole) { return lanes_load(p); }
inline Lanes load(const float* p, Part part, float fill = 0.0f) {
    float t[16];
    for (int i = 0; i < 16; i++) t[i] = i < part.n ? p[i] : fill;
    return lanes_load(t);
}
inline Lanes load(const float* p, Whole, float) { return lanes_load(p); }
inline void store(float* p, Lanes v, Whole) { lanes_store(p, v); }
inline void store(float* p, Lanes v, Part part) {
    float t[16];
    lanes_store(t, v);
    for (int i = 0; i < part.n; i++) p[i] = t[i];
}
inline Lanes load_i32(const int32_t* p, Whole) { return lanes_from_i32(p); }
inline Lanes load_i32(const int32_t* p, Part part) {
    int32_t t[16] = {};
    for (int i = 0; i < part.n; i++) t[i] = p[i];
    return lanes_from_i32(t);
}

// Calls f(i, Whole) for every 16 elements and f(i, Part) for the rest.
template <class F>
inline void by_lanes(int n, F f) {
    int i = 0;
    for (; i + 16 <= n; i += 16) f(i, Whole{});
    if (i < n) f(i, Part{n - i});
}

// ---- exp -------------------------------------------------------------------------------------------------
// exp(x) = 2^k * exp(r), |r| <= ln(2)/2, exp(r) by its Taylor polynomial of degree 7 (its error, r^8/8!, is 5e-9,
// a twentieth of half a unit in the last place). 2^k is applied by one instruction or in two factors: 2^128 is no float.
// At most 2 ulp; below kLeastExp -> 0, large -> inf, NaN -> NaN.
//
// What would be smaller than the smallest normal float, 1.2e-38, is nothing beside what it is added to, the largest of which is
// 1. But it costs: Intel's processors take some 150 cycles for each multiply-add that meets such a number, and the values of a
// position meet 64 to 128 of them. Attention with scores that far apart was at a fifth of its speed.
constexpr float kLeastExp = -87.33f;
inline Lanes lanes_exp(Lanes given) {
    // Beyond these bounds the result is 0 or infinity anyway. NaN passes: it compares false.
    Lanes x = lanes_smaller(lanes_all(89.0f), given);
    x = lanes_larger(lanes_all(kLeastExp), x);
    // Adding 1.5 * 2^23 rounds to an integer, nearest even, and leaves it in the low bits.
    const Lanes magic = lanes_all(12582912.0f);
    const Lanes shifted = lanes_fma(x, lanes_all(0x1.715476p+0f), magic);
    const Lanes k = lanes_sub(shifted, magic);
    Lanes r = lanes_fma(k, lanes_all(-0x1.62e400p-1f), x);  // ln 2 in two parts: k * the first is exact
    r = lanes_fma(k, lanes_all(-0x1.7f7d1cp-20f), r);
    Lanes p = lanes_all(1.0f / 5040.0f);
    p = lanes_fma(p, r, lanes_all(1.0f / 720.0f));
    p = lanes_fma(p, r, lanes_all(1.0f / 120.0f));
    p = lanes_fma(p, r, lanes_all(1.0f / 24.0f));
    p = lanes_fma(p, r, lanes_all(1.0f / 6.0f));
    p = lanes_fma(p, r, lanes_all(0.5f));
    p = lanes_fma(p, r, lanes_all(1.0f));
    p = lanes_fma(p, r, lanes_all(1.0f));
    return lanes_unless_less(given, lanes_all(kLeastExp), lanes_times_power(p, shifted, k));
}

// ---- activations to int8 ---------------------------------------------------------------------------------
inline Lanes scaled_input(const float* x, const float* g, int i, Whole w) {
    return g ? lanes_mul(load(x + i, w), load(g + i, w)) : load(x + i, w);
}
inline Lanes scaled_input(const float* x, const float* g, int i, Part part) {
    return g ? lanes_mul(load(x + i, part), load(g + i, part)) : load(x + i, part);
}
inline void store_i8(int8_t* q, Lanes v, Whole) { lanes_to_i8(q, v); }
inline void store_i8(int8_t* q, Lanes v, Part part) {
    int8_t t[16];
    lanes_to_i8(t, v);
    for (int i = 0; i < part.n; i++) q[i] = t[i];
}

// The largest magnitude, or NaN or infinity where there is one.
inline float largest_input(const float* x, const float* g, int n) {
    // The magnitudes are compared as integers: there NaN is larger than infinity, infinity larger than any number,
    // and the order of the comparisons cannot matter.
    LaneBits largest_bits = bits_zero();
    by_lanes(
        n, [&](int i, auto part) { largest_bits = bits_larger_magnitude(largest_bits, scaled_input(x, g, i, part)); });
    const uint32_t bits = bits_max(largest_bits);
    float largest;
    memcpy(&largest, &bits, 4);
    return largest;
}

// Rows that have no step: zero, or not finite. Then q is all zero and *scale says which.
inline bool has_no_step(float* scale, int8_t* q, float largest, int n) {
    const bool finite = largest <= 0x1.fffffep127f;
    if (finite && largest >= 0x1p-100f) return false;
    memset(q, 0, static_cast<size_t>(round_up(n, 64)));
    *scale = finite ? 0.0f : largest;
    return true;
}

float quantize(int8_t* q, const float* x, const float* g, int n) {
    const float largest = largest_input(x, g, n);
    float scale;
    if (has_no_step(&scale, q, largest, n)) return scale;
    const Lanes factor = lanes_all(127.0f / largest);
    by_lanes(n, [&](int i, auto part) { store_i8(q + i, lanes_mul(scaled_input(x, g, i, part), factor), part); });
    const int64_t end = round_up(n, 64);
    memset(q + n, 0, static_cast<size_t>(end - n));
    return largest / 127.0f;
}

// At 4 bits it pays to cut the largest values off, as much as leaves the least error in all: measured as KL divergence
// from float activations, on trained models whose activations were rounded so, 0.19 to 0.23 nats against 0.23 to 0.29
// with -max..max, and no less with ten times as many candidates. 16 odd levels without a zero: 0.38 to 0.45.
constexpr int kSteps4 = 4;
constexpr float kFactors4[kSteps4] = {1.0f, 1.0f / 0.85f, 1.0f / 0.7225f, 1.0f / 0.614125f};

inline Lanes rounded4(Lanes v, Lanes factor) {
    const Lanes magic = lanes_all(12582912.0f);  // adding 1.5 * 2^23 rounds to an integer, nearest even
    const Lanes r = lanes_sub(lanes_add(lanes_mul(v, factor), magic), magic);
    return lanes_larger(lanes_smaller(r, lanes_all(7.0f)), lanes_all(-7.0f));
}

float quantize4(int8_t* q, const float* x, const float* g, int n) {
    const float largest = largest_input(x, g, n);
    float scale;
    if (has_no_step(&scale, q, largest, n)) return scale;
    const Lanes factor = lanes_all(7.0f / largest);
    Lanes along[kSteps4], square[kSteps4];
    for (int k = 0; k < kSteps4; k++) along[k] = square[k] = lanes_zero();
    by_lanes(n, [&](int i, auto part) {
        const Lanes v = lanes_mul(scaled_input(x, g, i, part), factor);
        for (int k = 0; k < kSteps4; k++) {
            const Lanes r = rounded4(v, lanes_all(kFactors4[k]));
            along[k] = lanes_fma(v, r, along[k]);
            square[k] = lanes_fma(r, r, square[k]);
        }
    });
    int best = 0;
    float most = 0.0f, ratio = 0.0f;
    for (int k = 0; k < kSteps4; k++) {
        const float a = lanes_sum(along[k]), b = lanes_sum(square[k]);  // b >= 49: the largest value is +-7
        if (a * a / b <= most) continue;
        most = a * a / b;
        ratio = a / b;
        best = k;
    }
    const Lanes chosen = lanes_all(kFactors4[best]);
    by_lanes(n, [&](int i, auto part) {
        store_i8(q + i, rounded4(lanes_mul(scaled_input(x, g, i, part), factor), chosen), part);
    });
    memset(q + n, 0, static_cast<size_t>(round_up(n, 64) - n));
    return largest / 7.0f * ratio;
}

// ---- elementwise -----------------------------------------------------------------------------------------
void multiply(float* out, const float* x, const float* g, int n) {
    by_lanes(n, [=](int i, auto part) { store(out + i, lanes_mul(load(x + i, part), load(g + i, part)), part); });
}

void scale_i32(float* out, const int32_t* acc, float scale, const float* h, int n) {
    const Lanes s = lanes_all(scale);
    by_lanes(n, [=](int i, auto part) {
        const Lanes v = lanes_mul(load_i32(acc + i, part), s);
        store(out + i, h ? lanes_mul(v, load(h + i, part)) : v, part);
    });
}

void scale_planes(float* out, const int32_t* coarse, const int32_t* fine, const float* scale, const float* h, int n) {
    const Lanes s0 = lanes_all(scale[0]), s1 = lanes_all(scale[1]);
    by_lanes(n, [=](int i, auto part) {
        const Lanes v = lanes_add(lanes_mul(load_i32(coarse + i, part), s0), lanes_mul(load_i32(fine + i, part), s1));
        store(out + i, h ? lanes_mul(v, load(h + i, part)) : v, part);
    });
}

void scale_f32(float* out, const float* acc, float scale, const float* h, int n) {
    const Lanes s = lanes_all(scale);
    by_lanes(n, [=](int i, auto part) {
        const Lanes v = lanes_mul(load(acc + i, part), s);
        store(out + i, h ? lanes_mul(v, load(h + i, part)) : v, part);
    });
}

void add(float* x, const float* y, int n) {
    by_lanes(n, [=](int i, auto part) { store(x + i, lanes_add(load(x + i, part), load(y + i, part)), part); });
}

// x / (1 + exp(-z))
inline Lanes times_sigmoid(Lanes x, Lanes z) {
    return lanes_div(x, lanes_add(lanes_all(1.0f), lanes_exp(lanes_sub(lanes_zero(), z))));
}

inline Lanes relu(Lanes x) { return lanes_larger(lanes_zero(), x); }  // a NaN stays one

inline Lanes gelu(Lanes x) {
    const Lanes size = lanes_larger(x, lanes_sub(lanes_zero(), x)), z = lanes_mul(size, lanes_all(0.70710678f));
    const Lanes t = lanes_div(lanes_all(1.0f), lanes_fma(z, lanes_all(0.3275911f), lanes_all(1.0f)));
    Lanes p = lanes_all(1.061405429f);
    p = lanes_fma(p, t, lanes_all(-1.453152027f));
    p = lanes_fma(p, t, lanes_all(1.421413741f));
    p = lanes_fma(p, t, lanes_all(-0.284496736f));
    p = lanes_fma(p, t, lanes_all(0.254829592f));
    const Lanes e = lanes_mul(lanes_mul(p, t), lanes_exp(lanes_sub(lanes_zero(), lanes_mul(z, z))));
    return lanes_sub(relu(x), lanes_mul(lanes_mul(size, lanes_all(0.5f)), e));
}

inline Lanes gelu_tanh(Lanes x) {
    const Lanes cube = lanes_mul(lanes_mul(x, x), x);
    return times_sigmoid(x, lanes_mul(lanes_fma(cube, lanes_all(0.044715f), x), lanes_all(1.5957691f)));
}

template <class F>
inline void activate_with(float* out, const float* x, const float* up, int n, F f) {
    // Two loops, since a branch in one of them costs a quarter of it.
    if (up) by_lanes(n, [=](int i, auto part) { store(out + i, lanes_mul(f(load(x + i, part)), load(up + i, part)), part); });
    else by_lanes(n, [=](int i, auto part) { store(out + i, f(load(x + i, part)), part); });
}

void activate(float* out, const float* x, const float* up, int n, Activation activation) {
    switch (activation) {
        case Activation::silu: return activate_with(out, x, up, n, [](Lanes v) { return times_sigmoid(v, v); });
        case Activation::relu: return activate_with(out, x, up, n, [](Lanes v) { return relu(v); });
        case Activation::relu2: return activate_with(out, x, up, n, [](Lanes v) { return lanes_mul(relu(v), relu(v)); });
        case Activation::gelu: return activate_with(out, x, up, n, [](Lanes v) { return gelu(v); });
        case Activation::gelu_tanh: return activate_with(out, x, up, n, [](Lanes v) { return gelu_tanh(v); });
    }
}

void gate_by(float* x, const float* gate, int n) {
    by_lanes(n, [=](int i, auto part) { store(x + i, times_sigmoid(load(x + i, part), load(gate + i, part)), part); });
}

// ---- norms -----------------------------------------------------------------------------------------------
inline float sum_of_squares(const float* x, int n) {
    Lanes sum = lanes_zero();
    by_lanes(n, [&](int i, auto part) {
        const Lanes v = load(x + i, part);
        sum = lanes_fma(v, v, sum);
    });
    return lanes_sum(sum);
}

void rmsnorm(float* out, const float* x, const float* w, int n, float eps) {
    const float mean = sum_of_squares(x, n) / static_cast<float>(n);
    const Lanes inverse = lanes_all(1.0f / sqrtf(mean + eps));
    by_lanes(n, [=](int i, auto part) {
        store(out + i, lanes_mul(lanes_mul(load(x + i, part), inverse), load(w + i, part)), part);
    });
}

// A sum over a row is one chain of additions, each of which waits for the one before; R rows are R chains. (135M shape, 512
// tokens, 4 rows at a time instead of one: LayerNorm 6.3 -> 3.5 % of the prompt.)
template <int R>
inline void layernorm_rows(float* const* rows, int n, float eps) {
    const float count = static_cast<float>(n);
    float* x[R];
    Lanes sums[R], inverse[R];
    float mean[R];
    unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA { x[r] = rows[r], sums[r] = lanes_zero(); });
    by_lanes(n, [&](int i, auto part) {
        unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA { sums[r] = lanes_add(sums[r], load(x[r] + i, part)); });
    });
    unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA { mean[r] = lanes_sum(sums[r]) / count, sums[r] = lanes_zero(); });
    by_lanes(n, [&](int i, auto part) {
        unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA {
            const Lanes v = lanes_sub(load(x[r] + i, part, mean[r]), lanes_all(mean[r]));  // 0 behind the row's end
            store(x[r] + i, v, part);
            sums[r] = lanes_fma(v, v, sums[r]);
        });
    });
    unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA { inverse[r] = lanes_all(1.0f / sqrtf(lanes_sum(sums[r]) / count + eps)); });
    by_lanes(n, [&](int i, auto part) {
        unrolled<R>([&](auto r) ONEBIT_INLINE_LAMBDA { store(x[r] + i, lanes_mul(load(x[r] + i, part), inverse[r]), part); });
    });
}

void layernorm(float* const* rows, int n_rows, int n, float eps) {
    by_groups<4>(n_rows, [&](int first, auto group) { layernorm_rows<decltype(group)::value>(rows + first, n, eps); });
}

// ---- a column beside a matrix ------------------------------------------------------------------------------
// Each token's sum is one chain of additions, as above.
template <int T>
inline void add_column_to(float* const* y, const float* const* x, const float* u, int rows, const float* v, int cols) {
    Lanes sums[T];
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA { sums[t] = lanes_zero(); });
    by_lanes(cols, [&](int i, auto part) {
        const Lanes weight = load(v + i, part);
        unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA { sums[t] = lanes_fma(weight, load(x[t] + i, part), sums[t]); });
    });
    unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA { sums[t] = lanes_all(lanes_sum(sums[t])); });
    by_lanes(rows, [&](int i, auto part) {
        const Lanes weight = load(u + i, part);
        unrolled<T>([&](auto t) ONEBIT_INLINE_LAMBDA {
            store(y[t] + i, lanes_fma(sums[t], weight, load(y[t] + i, part)), part);
        });
    });
}

void add_column(float* const* y, const float* const* x, int n_tokens, const float* u, int rows, const float* v, int cols) {
    by_groups<4>(n_tokens, [&](int first, auto group) {
        add_column_to<decltype(group)::value>(y + first, x + first, u, rows, v, cols);
    });
}

// ---- rotary embedding --------------------------------------------------------------------------------------
void rope(float* x, const float* cos, const float* sin, int dims, bool interleaved) {
    const int half = dims / 2;
    if (interleaved) {
        for (int i = 0; i < half; i++) {
            const float x0 = x[2 * i], x1 = x[2 * i + 1];
            const float a = x0 * cos[i], b = x1 * sin[i], c = x1 * cos[i], d = x0 * sin[i];
            x[2 * i] = a - b;
            x[2 * i + 1] = c + d;
        }
        return;
    }
    by_lanes(half, [=](int i, auto part) {
        const Lanes x0 = load(x + i, part), x1 = load(x + half + i, part);
        const Lanes c = load(cos + i, part), s = load(sin + i, part);
        store(x + i, lanes_sub(lanes_mul(x0, c), lanes_mul(x1, s)), part);
        store(x + half + i, lanes_add(lanes_mul(x1, c), lanes_mul(x0, s)), part);
    });
}

// ---- softmax ingredients -----------------------------------------------------------------------------------
constexpr float kMinusInfinity = -INFINITY;

// The largest of n floats, 16 of which lie together and `spread` times 16 apart from the next. NaN is left out. Lane by lane
// in ascending order, then the tree of lanes16 (the order decides between -0 and +0).
inline float largest_of(const float* x, int n, int spread) {
    Lanes largest = lanes_all(kMinusInfinity);
    by_lanes(n, [&](int i, auto part) { largest = lanes_larger(load(x + i * spread, part, kMinusInfinity), largest); });
    float l[16];
    lanes_store(l, largest);
    for (int step = 8; step > 0; step /= 2) {
        for (int i = 0; i < step; i++) l[i] = l[i + step] > l[i] ? l[i + step] : l[i];
    }
    return l[0];
}

void max_sum_exp(float* max, float* sum, const float* x, int n) {
    const float largest = largest_of(x, n, 1);
    const Lanes shift = lanes_all(largest);
    LaneBits magnitude = bits_zero();
    Lanes total = lanes_zero();
    by_lanes(n, [&](int i, auto part) {
        const Lanes v = load(x + i, part, kMinusInfinity);
        magnitude = bits_larger_magnitude(magnitude, v);
        total = lanes_add(total, lanes_exp(lanes_sub(v, shift)));
    });
    *sum = lanes_sum(total);
    *max = bits_max(magnitude) > 0x7f800000u ? NAN : largest;
}

// ---- conversions -------------------------------------------------------------------------------------------
void f32_to_f16(uint16_t* out, const float* x, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16) lanes_to_f16(out + i, lanes_load(x + i));
    if (i == n) return;
    uint16_t t[16];
    lanes_to_f16(t, load(x + i, Part{n - i}));
    for (int k = i; k < n; k++) out[k] = t[k - i];
}

void f16_to_f32(float* out, const uint16_t* x, int n) {
    int i = 0;
    for (; i + 16 <= n; i += 16) lanes_store(out + i, lanes_from_f16(x + i));
    if (i == n) return;
    uint16_t t[16] = {};
    for (int k = i; k < n; k++) t[k - i] = x[k];
    store(out + i, lanes_from_f16(t), Part{n - i});
}
