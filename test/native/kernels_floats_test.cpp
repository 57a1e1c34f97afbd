// Matrix products and attention in float: every set gives the very bits of the order of summation that kernels.h fixes,
// written here element by element.
#include <string>

#include "kernels_checks.h"

using namespace onebit;
using check::Random;

namespace {

Guarded weights(8u << 20), inputs(8u << 20), output(4u << 20), scratch(4u << 20), scale_bits(1u << 20), other(8u << 20);

struct Shape {
    int rows, cols, tokens;
    size_t x_stride, out_stride;
    bool at_end;
    std::string text;
};

Shape some_shape(Random& random, int multiple) {
    Shape s;
    s.rows = random.between(1, 20);
    s.cols = multiple == 1 ? check::some_size(random, 5000) : random.between(1, 400 / multiple + 1) * multiple;
    s.tokens = random.between(1, 9);
    s.x_stride = static_cast<size_t>(padded(s.cols, 16)) + static_cast<size_t>(random.between(0, 3));
    s.out_stride = static_cast<size_t>(s.rows) + static_cast<size_t>(random.between(0, 3));
    s.at_end = random.chance(2);
    s.text =
        "rows " + std::to_string(s.rows) + ", cols " + std::to_string(s.cols) + ", tokens " + std::to_string(s.tokens);
    return s;
}

// (tokens, x_stride), each row padded with zeros to 16.
float* some_inputs(Random& random, const Shape& s) {
    const size_t row = static_cast<size_t>(padded(s.cols, 16));
    float* x = inputs.place<float>(static_cast<size_t>(s.tokens - 1) * s.x_stride + row, s.at_end);
    for (int t = 0; t < s.tokens; t++)
        check::fill_floats(random, x + static_cast<size_t>(t) * s.x_stride, s.cols, padded(s.cols, 16));
    return x;
}

// Runs a kernel on every set and compares with want(t, r).
template <class Run, class Want>
bool on_every_set(const char* name, uint64_t seed, const Shape& s, Want want, Run run) {
    std::vector<float> expected;
    for (int t = 0; t < s.tokens; t++) {
        for (int r = 0; r < s.rows; r++) expected.push_back(want(static_cast<size_t>(t), static_cast<size_t>(r)));
    }
    const size_t rows = static_cast<size_t>(s.rows);
    for (const KernelSet* set : check::sets()) {
        float* out = output.place<float>(static_cast<size_t>(s.tokens - 1) * s.out_stride + rows, s.at_end);
        run(set, out);
        if (!check::untouched(name, set, seed, output)) return false;
        for (size_t t = 0; t < static_cast<size_t>(s.tokens); t++) {
            if (!check::equal(name, set, seed, s.text.c_str(), out + t * s.out_stride, expected.data() + t * rows,
                              rows))
                return false;
        }
    }
    return true;
}

bool sign_f32_case(uint64_t seed) {
    Random random(seed);
    const Shape s = some_shape(random, 1);
    const size_t row_bytes = static_cast<size_t>(padded(s.cols, 16) / 8);
    uint8_t* signs = weights.place<uint8_t>(static_cast<size_t>(s.rows) * row_bytes, s.at_end);
    check::fill_signs(random, signs, static_cast<size_t>(s.rows) * row_bytes);
    const float* x = some_inputs(random, s);
    return on_every_set(
        "sign_f32", seed, s,
        [&](size_t t, size_t r) {
            float lane[16] = {};
            for (int i = 0; i < padded(s.cols, 16); i++) {
                const float v = x[t * s.x_stride + static_cast<size_t>(i)];
                lane[i % 16] += (signs[r * row_bytes + static_cast<size_t>(i / 8)] >> i % 8 & 1) ? -v : v;
            }
            return check::tree(lane);
        },
        [&](const KernelSet* set, float* out) {
            set->sign_f32(out, s.out_stride, signs, s.rows, s.cols, x, s.x_stride, s.tokens);
        });
}

bool grouped_f32_case(uint64_t seed) {
    Random random(seed);
    const Shape s = some_shape(random, 128);
    const size_t row_bytes = static_cast<size_t>(s.cols / 8), groups = static_cast<size_t>(s.cols / 128);
    uint8_t* signs = weights.place<uint8_t>(static_cast<size_t>(s.rows) * row_bytes, s.at_end);
    check::fill_signs(random, signs, static_cast<size_t>(s.rows) * row_bytes);
    uint16_t* d = scale_bits.place<uint16_t>(static_cast<size_t>(s.rows) * groups, s.at_end);
    for (size_t i = 0; i < static_cast<size_t>(s.rows) * groups; i++) d[i] = f16_from_f32(random.unit());
    const float* x = some_inputs(random, s);
    return on_every_set(
        "grouped_f32", seed, s,
        [&](size_t t, size_t r) {
            float lane[16] = {};
            for (size_t g = 0; g < groups; g++) {
                float part[16] = {};
                for (size_t i = g * 128; i < g * 128 + 128; i++) {
                    const float v = x[t * s.x_stride + i];
                    part[i % 16] += (signs[r * row_bytes + i / 8] >> i % 8 & 1) ? -v : v;
                }
                for (int l = 0; l < 16; l++) lane[l] = fmaf(f32_from_f16(d[r * groups + g]), part[l], lane[l]);
            }
            return check::tree(lane);
        },
        [&](const KernelSet* set, float* out) {
            set->grouped_f32(out, s.out_stride, signs, d, s.rows, s.cols, x, s.x_stride, s.tokens);
        });
}

template <class Weight>
float dense_sum(const float* x, int cols, Weight weight) {
    float lane[16] = {};
    for (int i = 0; i < padded(cols, 16); i++) lane[i % 16] = fmaf(weight(static_cast<size_t>(i)), x[i], lane[i % 16]);
    return check::tree(lane);
}

bool dense_case(uint64_t seed) {
    Random random(seed);
    const Shape s = some_shape(random, 1);
    const size_t row = static_cast<size_t>(padded(s.cols, 64)), count = row * static_cast<size_t>(s.rows);
    const DType dtype = seed % 3 == 0 ? DType::f32 : seed % 3 == 1 ? DType::f16 : DType::bf16;
    std::vector<float> w(count);
    for (int r = 0; r < s.rows; r++)
        check::fill_floats(random, w.data() + static_cast<size_t>(r) * row, s.cols, static_cast<int64_t>(row));
    void* stored = nullptr;
    if (dtype == DType::f32) {
        stored = weights.place<float>(count, s.at_end);
        memcpy(stored, w.data(), count * 4);
    } else {
        uint16_t* half = weights.place<uint16_t>(count, s.at_end);
        for (size_t i = 0; i < count; i++) {
            half[i] = dtype == DType::f16 ? f16_from_f32(w[i]) : bf16_from_f32(w[i]);
            w[i] = dtype == DType::f16 ? f32_from_f16(half[i]) : f32_from_bf16(half[i]);
        }
        stored = half;
    }
    const float* x = some_inputs(random, s);
    return on_every_set(
        dtype == DType::f32   ? "dense_f32 f32"
        : dtype == DType::f16 ? "dense_f32 f16"
                              : "dense_f32 bf16",
        seed, s,
        [&](size_t t, size_t r) {
            return dense_sum(x + t * s.x_stride, s.cols, [&](size_t i) { return w[r * row + i]; });
        },
        [&](const KernelSet* set, float* out) {
            set->dense_f32(out, s.out_stride, stored, dtype, s.rows, s.cols, x, s.x_stride, s.tokens);
        });
}

bool q8_f32_case(uint64_t seed) {
    Random random(seed);
    const Shape s = some_shape(random, 1);
    const size_t row = static_cast<size_t>(padded(s.cols, 64));
    int8_t* w = weights.place<int8_t>(row * static_cast<size_t>(s.rows), s.at_end);
    for (size_t i = 0; i < row * static_cast<size_t>(s.rows); i++) {
        w[i] = static_cast<int8_t>(i % row < static_cast<size_t>(s.cols) ? random.between(-128, 127) : 0);
    }
    const float* x = some_inputs(random, s);
    return on_every_set(
        "q8_f32", seed, s,
        [&](size_t t, size_t r) {
            return dense_sum(x + t * s.x_stride, s.cols, [&](size_t i) { return static_cast<float>(w[r * row + i]); });
        },
        [&](const KernelSet* set, float* out) {
            set->q8_f32(out, s.out_stride, w, s.rows, s.cols, x, s.x_stride, s.tokens);
        });
}

// ---- attention -------------------------------------------------------------------------------------------

struct AttendCase {
    int head_dim;
    DType dtype;
    float scale;
    std::vector<int> first, positions;               // of each query
    std::vector<float> q, k, v;               // (queries, head_dim), (most positions, head_dim) twice
    std::vector<float> k_scale, v_scale;      // of each position, at place_of_scale
    int most = 0;
    size_t gap = 0;                           // elements between two chunks

    double key(size_t position, size_t d) const {
        const double scale = k_scale.empty() ? 1 : k_scale[place_of_scale(position)];
        return static_cast<double>(k[position * static_cast<size_t>(head_dim) + d]) * scale;
    }
    double value(size_t position, size_t d) const {
        const double scale = v_scale.empty() ? 1 : v_scale[place_of_scale(position)];
        return static_cast<double>(v[position * static_cast<size_t>(head_dim) + d]) * scale;
    }
    size_t place_of_scale(size_t position) const { return position / kKvChunk * gap + position; }
};

// The definition in double precision.
std::vector<double> attend_reference(const AttendCase& c) {
    std::vector<double> out;
    const size_t dim = static_cast<size_t>(c.head_dim);
    for (size_t j = 0; j < c.positions.size(); j++) {
        std::vector<double> p;
        double largest = -INFINITY, sum = 0;
        const auto begin = static_cast<size_t>(c.first[j]);
        for (size_t i = begin; i < static_cast<size_t>(c.positions[j]); i++) {
            double score = 0;
            for (size_t d = 0; d < dim; d++) score += static_cast<double>(c.q[j * dim + d]) * c.key(i, d);
            p.push_back(score * static_cast<double>(c.scale));
            largest = p.back() > largest ? p.back() : largest;
        }
        for (double& value : p) sum += value = exp(value - largest);
        for (size_t d = 0; d < dim; d++) {
            double mixed = 0;
            for (size_t i = 0; i < p.size(); i++) mixed += p[i] * c.value(begin + i, d);
            out.push_back(mixed / sum);
        }
    }
    return out;
}

// Where element d of a position lies.
size_t place_of(const AttendCase& c, bool is_key, size_t position, size_t d) {
    const auto dim = static_cast<size_t>(c.head_dim);
    const size_t before = position / kKvChunk * c.gap;
    return before + (is_key ? (position / kKeyBlock * dim + d) * kKeyBlock + position % kKeyBlock : position * dim + d);
}

template <class T, class Encode>
const void* place_cache(Guarded& buffer, const AttendCase& c, bool is_key, T garbage, bool at_end, Encode encode) {
    const size_t rows = static_cast<size_t>(is_key ? padded(c.most, kKeyBlock) : c.most);
    const size_t count = rows * static_cast<size_t>(c.head_dim) + (rows - 1) / kKvChunk * c.gap;
    T* to = buffer.place<T>(count, at_end);
    for (size_t i = 0; i < count; i++) to[i] = garbage;
    for (size_t p = 0; p < static_cast<size_t>(c.most); p++) {
        for (size_t d = 0; d < static_cast<size_t>(c.head_dim); d++) to[place_of(c, is_key, p, d)] = encode(p, d);
    }
    return to;
}

// Writes the cache in the kernel's layout, and rounds the case's own values as the cache does.
const void* place_cache(Guarded& buffer, AttendCase& c, bool is_key, bool at_end) {
    std::vector<float>& values = is_key ? c.k : c.v;
    const auto at = [&](size_t p, size_t d) -> float& { return values[p * static_cast<size_t>(c.head_dim) + d]; };
    if (c.dtype == DType::f32) {
        return place_cache<float>(buffer, c, is_key, NAN, at_end, [&](size_t p, size_t d) { return at(p, d); });
    }
    if (c.dtype == DType::q8) {
        return place_cache<int8_t>(buffer, c, is_key, int8_t{-128}, at_end, [&](size_t p, size_t d) {
            at(p, d) = rintf(at(p, d) * 4);
            at(p, d) = at(p, d) == at(p, d) ? at(p, d) : 0;
            return static_cast<int8_t>(at(p, d));
        });
    }
    return place_cache<uint16_t>(buffer, c, is_key, uint16_t{0x7e00}, at_end, [&](size_t p, size_t d) {
        const uint16_t half = f16_from_f32(at(p, d));
        at(p, d) = f32_from_f16(half);
        return half;
    });
}

AttendCase random_attend_case(Random& random) {
    AttendCase c;
    const int n = random.between(1, 19);
    const int most = random.chance(20) ? random.between(1, 900) : random.between(1, 40);
    // Queries of the same token and of the ones before it, as in a prompt; sometimes any.
    for (int j = 0; j < n; j++) {
        const int back = random.chance(4) ? random.between(0, most - 1) : j / 3;
        c.positions.push_back(most - (back < most ? back : most - 1));
        c.most = c.positions.back() > c.most ? c.positions.back() : c.most;
    }
    // A window of each, or of all alike.
    const int window = random.chance(2) ? random.between(1, 300) : most;
    const bool alike = random.chance(2);
    for (const int end : c.positions) {
        c.first.push_back(alike ? (end > window ? end - window : 0) : random.chance(2) ? 0 : random.between(0, end - 1));
    }
    c.head_dim = random.chance(2) ? random.between(1, 8) * 16 : random.between(1, 140);
    c.scale = 1.0f / sqrtf(static_cast<float>(c.head_dim));
    c.gap = static_cast<size_t>(random.between(0, 90));
    const DType dtypes[] = {DType::f16, DType::f32, DType::q8};
    c.dtype = dtypes[random.between(0, 2)];
    const size_t dim = static_cast<size_t>(c.head_dim), cache = static_cast<size_t>(c.most) * dim;
    c.q.resize(static_cast<size_t>(n) * dim);
    c.k.resize(cache);
    c.v.resize(cache);
    const float spread = random.chance(4) ? 30.0f : 2.0f;
    for (float& x : c.q) x = random.unit() * spread;
    for (float& x : c.k) x = random.unit() * spread;
    for (float& x : c.v) x = random.unit();
    if (c.dtype == DType::q8) {
        c.k_scale.assign(c.place_of_scale(static_cast<size_t>(padded(c.most, kKeyBlock) - 1)) + 1, NAN);
        c.v_scale = c.k_scale;
        for (size_t p = 0; p < static_cast<size_t>(c.most); p++) {
            c.k_scale[c.place_of_scale(p)] = 0.25f + 0.01f * random.unit();
            c.v_scale[c.place_of_scale(p)] = 0.2f + 0.05f * random.unit();
        }
    }
    if (random.chance(50)) c.k[random.next() % cache] = NAN;
    // What a query does not reach must not reach it: the last position's value is infinite for the others, or the first's.
    if (c.dtype != DType::q8 && random.chance(8)) c.v[random.chance(2) ? cache - 1 : 0] = INFINITY;
    return c;
}

bool attend_case(uint64_t seed) {
    Random random(seed);
    AttendCase c = random_attend_case(random);
    const bool at_end = random.chance(2);
    const size_t chunk = kKvChunk * static_cast<size_t>(c.head_dim) + c.gap;
    KvHead kv{place_cache(weights, c, true, at_end), place_cache(other, c, false, at_end), c.dtype, chunk * element_bytes(c.dtype)};
    if (c.dtype == DType::q8) {
        kv.k_scale = c.k_scale.data(), kv.v_scale = c.v_scale.data();
        kv.scale_stride = (kKvChunk + c.gap) * sizeof(float);
    }
    float* q = inputs.place<float>(c.q.size(), at_end);
    memcpy(q, c.q.data(), c.q.size() * 4);
    const std::vector<double> reference = attend_reference(c);
    const size_t n = c.positions.size(), dim = static_cast<size_t>(c.head_dim);
    const std::string shape = "queries " + std::to_string(n) + ", positions " + std::to_string(c.most) + ", head_dim " +
                              std::to_string(c.head_dim) + ", cache " + std::to_string(static_cast<int>(c.dtype));
    std::vector<float> first;
    for (const KernelSet* set : check::sets()) {
        float* out = output.place<float>(c.q.size(), at_end);
        const auto row_floats = static_cast<size_t>(padded(c.head_dim, 16) + padded(c.most, 16));
        float* room = scratch.place<float>(n * row_floats, at_end);
        std::vector<AttendQuery> queries;
        for (size_t j = 0; j < n; j++) queries.push_back({q + j * dim, out + j * dim, c.first[j], c.positions[j]});
        set->attend(queries.data(), static_cast<int>(n), kv, c.head_dim, c.scale, room, nullptr);
        if (!check::untouched("attend", set, seed, output) || !check::untouched("attend", set, seed, scratch))
            return false;
        if (first.empty()) first.assign(out, out + c.q.size());
        if (!check::equal("attend", set, seed, shape.c_str(), out, first.data(), first.size())) return false;
        for (size_t i = 0; i < first.size(); i++) {
            const double error = fabs(out[i] - reference[i]);
            const double magnitude = 1 + (isfinite(reference[i]) ? fabs(reference[i]) : 0);
            // Scores in the thousands carry an absolute float error of about 1e-4; |v| <= 1.
            // A probability that is 0 in float and not in double makes NaN of an infinite value.
            const bool both_finite = isfinite(reference[i]) && isfinite(out[i]);
            if (isfinite(reference[i]) != isfinite(out[i]) || (both_finite && error > 3e-3 * magnitude)) {
                check::fail("attend on %s, seed %llu (%s): [%zu] is %.9g, should be %.9g", set->name,
                            static_cast<unsigned long long>(seed), shape.c_str(), i, static_cast<double>(out[i]),
                            reference[i]);
                return false;
            }
        }
        // The same one at a time: which queries share a call changes nothing.
        std::vector<float> alone(c.q.size());
        std::vector<float> row(row_floats);
        for (size_t j = 0; j < n; j++) {
            AttendQuery query{q + j * dim, alone.data() + j * dim, c.first[j], c.positions[j]};
            set->attend(&query, 1, kv, c.head_dim, c.scale, row.data(), nullptr);
        }
        if (!check::equal("attend alone", set, seed, shape.c_str(), alone.data(), first.data(), first.size())) return false;
    }
    return true;
}

}  // namespace

int main() {
    check::family("sign_f32", check::cases(), sign_f32_case);
    check::family("grouped_f32", check::cases(), grouped_f32_case);
    check::family("dense_f32", check::cases(), dense_case);
    check::family("q8_f32", check::cases(), q8_f32_case);
    check::family("attend", check::cases(), attend_case);
    return check::finish();
}
