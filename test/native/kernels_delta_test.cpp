// The delta rule and what stands before it: every set gives the very bits of the order that kernels.h fixes, which is written
// here once more (reference_delta.h), and that order computes what the rule says.
#include <string>

#include "kernels_checks.h"
#include "reference.h"

using namespace onebit;
using check::Random;

namespace {

Guarded state(8u << 20), before(8u << 20), queries(1u << 20), values(1u << 20), output(1u << 20), weights(1u << 20);

struct Shape {
    int k_dim, v_dim, tokens;
    size_t k_stride, v_row, v_stride;
    bool at_end;
    std::string text;
};

Shape some_shape(Random& random) {
    Shape s;
    s.k_dim = random.chance(3) ? 16 * random.between(1, 12) : random.between(1, 150);
    s.v_dim = random.chance(3) ? 16 * random.between(1, 12) : random.between(1, 150);
    s.tokens = random.between(1, random.chance(3) ? kMostDeltaSteps : 4);
    s.k_stride = static_cast<size_t>(s.k_dim + random.between(0, 3));
    s.v_row = static_cast<size_t>(padded(s.v_dim, 16));
    s.v_stride = s.v_row + static_cast<size_t>(random.between(0, 3));
    s.at_end = random.chance(2);
    s.text = "state " + std::to_string(s.k_dim) + " x " + std::to_string(s.v_dim) + ", tokens " + std::to_string(s.tokens);
    return s;
}

// The state as kernels have it, from rows.
size_t place_of(const Shape& s, int i, int j) {
    return static_cast<size_t>((j / 16 * s.k_dim + i) * 16 + j % 16);
}

struct Example {
    reference::DeltaHead head;
    std::vector<reference::DeltaToken> tokens;
};

Example some_example(Random& random, const Shape& s) {
    Example e;
    const auto floats = [&](int n, float most) {
        reference::Floats out;
        for (int i = 0; i < n; i++) out.push_back(random.unit() * most);
        return out;
    };
    e.head = {s.k_dim, s.v_dim, random.chance(3) ? reference::Floats(static_cast<size_t>(s.k_dim * s.v_dim), 0.0f) : floats(s.k_dim * s.v_dim, 2)};
    for (int t = 0; t < s.tokens; t++) {
        reference::DeltaToken token{floats(s.k_dim, 1), floats(s.k_dim, 1), floats(s.v_dim, 3), 0.5f + random.unit() / 2, 0.5f + random.unit() / 2};
        reference::set_length(token.q, 0.3f, 1e-6f);
        reference::set_length(token.k, 1.0f, 1e-6f);
        e.tokens.push_back(token);
    }
    return e;
}

// The rule as papers write it, in double.
std::vector<double> textbook(const Example& e) {
    const auto k_dim = static_cast<size_t>(e.head.k_dim), v_dim = static_cast<size_t>(e.head.v_dim);
    std::vector<double> s(e.head.s.begin(), e.head.s.end()), out;
    for (const reference::DeltaToken& t : e.tokens) {
        for (double& x : s) x *= static_cast<double>(t.decay);
        for (size_t j = 0; j < v_dim; j++) {
            double expected = 0, read = 0;
            for (size_t i = 0; i < k_dim; i++) expected += static_cast<double>(t.k[i]) * s[i * v_dim + j];
            const double correction = static_cast<double>(t.beta) * (static_cast<double>(t.v[j]) - expected);
            for (size_t i = 0; i < k_dim; i++) {
                s[i * v_dim + j] += static_cast<double>(t.k[i]) * correction;
                read += static_cast<double>(t.q[i]) * s[i * v_dim + j];
            }
            out.push_back(read);
        }
    }
    return out;
}

bool runs_alike(uint64_t seed, const Shape& s, const Example& e, const reference::Floats& out, const reference::DeltaHead& after, bool in_place) {
    const auto count = static_cast<size_t>(s.tokens), k_dim = static_cast<size_t>(s.k_dim);
    const size_t state_size = s.v_row * k_dim;
    float* q = queries.place<float>(2 * ((count - 1) * s.k_stride + k_dim), s.at_end);
    float* k = q + (count - 1) * s.k_stride + k_dim;
    float* v = values.place<float>((count - 1) * s.v_stride + s.v_row, s.at_end);
    std::vector<float> decay, beta;
    for (size_t t = 0; t < count; t++) {
        memcpy(q + t * s.k_stride, e.tokens[t].q.data(), k_dim * 4);
        memcpy(k + t * s.k_stride, e.tokens[t].k.data(), k_dim * 4);
        for (size_t j = 0; j < s.v_row; j++) v[t * s.v_stride + j] = j < e.tokens[t].v.size() ? e.tokens[t].v[j] : 0.0f;
        decay.push_back(e.tokens[t].decay);
        beta.push_back(e.tokens[t].beta);
    }
    for (const KernelSet* set : check::sets()) {
        float *to = state.place<float>(state_size, s.at_end), *from = in_place ? to : before.place<float>(state_size, s.at_end);
        memset(from, 0, state_size * 4);
        for (int i = 0; i < s.k_dim; i++) {
            for (int j = 0; j < s.v_dim; j++) from[place_of(s, i, j)] = e.head.s[static_cast<size_t>(i * s.v_dim + j)];
        }
        float* got = output.place<float>((count - 1) * s.v_stride + s.v_row, s.at_end);
        set->delta_rule(to, from, {s.tokens, q, k, v, s.k_stride, s.v_stride, decay.data(), beta.data(), got}, s.k_dim, s.v_dim);
        if (!check::untouched("delta_rule", set, seed, state) || !check::untouched("delta_rule", set, seed, output)) return false;
        for (size_t t = 0; t < count; t++) {
            const auto width = static_cast<size_t>(s.v_dim);
            if (!check::equal("delta_rule", set, seed, s.text.c_str(), got + t * s.v_stride, out.data() + t * width, width)) return false;
        }
        reference::Floats left;
        for (int i = 0; i < s.k_dim; i++) {
            for (int j = 0; j < s.v_dim; j++) left.push_back(to[place_of(s, i, j)]);
        }
        if (!check::equal("delta_rule's state", set, seed, s.text.c_str(), left.data(), after.s.data(), left.size())) return false;
    }
    return true;
}

bool delta_case(uint64_t seed) {
    Random random(seed);
    const Shape s = some_shape(random);
    const Example e = some_example(random, s);
    reference::DeltaHead after = e.head;
    reference::Floats out;
    for (const reference::DeltaToken& token : e.tokens) {
        const reference::Floats read = reference::delta_step(after, token);
        out.insert(out.end(), read.begin(), read.end());
    }
    const std::vector<double> exact = textbook(e);
    for (size_t i = 0; i < exact.size(); i++) {
        if (fabs(exact[i] - static_cast<double>(out[i])) < 1e-4) continue;
        check::fail("delta_rule, seed %llu (%s): [%zu] is %.9g, the rule gives %.9g", static_cast<unsigned long long>(seed), s.text.c_str(), i,
                    static_cast<double>(out[i]), exact[i]);
        return false;
    }
    return runs_alike(seed, s, e, out, after, random.chance(2));
}

bool unit_length_case(uint64_t seed) {
    Random random(seed);
    const int n = check::some_size(random, 1000);
    const bool at_end = random.chance(2);
    reference::Floats x(static_cast<size_t>(n));
    check::fill_floats(random, x.data(), n, n);
    const float length = random.chance(2) ? 1.0f : 0.0883883461f;
    reference::Floats want = x;
    reference::set_length(want, length, 1e-6f);
    for (const KernelSet* set : check::sets()) {
        float* got = output.place<float>(x.size(), at_end);
        memcpy(got, x.data(), x.size() * 4);
        set->unit_length(got, n, 1e-6f, length);
        if (!check::untouched("unit_length", set, seed, output)) return false;
        if (!check::equal("unit_length", set, seed, std::to_string(n).c_str(), got, want.data(), x.size())) return false;
    }
    return true;
}

bool convolve_case(uint64_t seed) {
    Random random(seed);
    const int n = check::some_size(random, 1000), taps = random.between(1, 6);
    const bool at_end = random.chance(2);
    const size_t count = static_cast<size_t>(n), stride = count + static_cast<size_t>(random.between(0, 5));
    std::vector<reference::Floats> tokens;
    const float* pointers[6];
    float* x = values.place<float>(count * static_cast<size_t>(taps), at_end);
    for (int j = 0; j < taps; j++) {
        float* row = x + static_cast<size_t>(j) * count;
        for (size_t c = 0; c < count; c++) row[c] = random.unit() * 5;
        tokens.emplace_back(row, row + count);
        pointers[j] = row;
    }
    float* w = weights.place<float>((static_cast<size_t>(taps) - 1) * stride + count, at_end);
    reference::Floats by_channel(count * static_cast<size_t>(taps));
    for (int j = 0; j < taps; j++) {
        for (size_t c = 0; c < count; c++) {
            w[static_cast<size_t>(j) * stride + c] = by_channel[c * static_cast<size_t>(taps) + static_cast<size_t>(j)] = random.unit();
        }
    }
    const reference::Floats want = reference::convolved(tokens, by_channel, taps);
    for (const KernelSet* set : check::sets()) {
        float* got = output.place<float>(count, at_end);
        set->convolve(got, pointers, w, stride, taps, n);
        if (!check::untouched("convolve", set, seed, output)) return false;
        if (!check::equal("convolve", set, seed, std::to_string(n).c_str(), got, want.data(), count)) return false;
    }
    return true;
}

}  // namespace

int main() {
    check::family("delta_rule", check::cases() / 10, delta_case);
    check::family("unit_length", check::cases(), unit_length_case);
    check::family("convolve", check::cases(), convolve_case);
    return check::finish();
}
