// The gated delta rule, plainly: one token after the other, in the order of additions that binding/kernels/kernels.h states.
#pragma once

#include <cmath>
#include <map>
#include <vector>

#include "kernels/math.h"
#include "model/config.h"
#include "reference_sums.h"

namespace reference {

using Floats = std::vector<float>;

inline float exp_of(float x);  // reference.h

inline float sigmoid(float x) { return static_cast<float>(1.0 / (1.0 + onebit::exp_exact(-static_cast<double>(x)))); }

// exp(A softplus(x)), softplus without an overflow.
inline float decay_of(float a, float x) {
    const double positive = x > 0 ? static_cast<double>(x) : 0.0, size = std::fabs(static_cast<double>(x));
    const double softplus = positive + onebit::log_exact(1.0 + onebit::exp_exact(-size));
    return static_cast<float>(onebit::exp_exact(static_cast<double>(a) * softplus));
}

// A head's state, S[i * v_dim + j], and what a token brings to it.
struct DeltaHead {
    int k_dim = 0, v_dim = 0;
    Floats s;
};
struct DeltaToken {
    Floats q, k, v;
    float decay = 1, beta = 0;
};

// The state after the token, and what it reads there.
inline Floats delta_step(DeltaHead& head, const DeltaToken& token) {
    Lanes along;
    float_dot(token.k.data(), token.q.data(), head.k_dim, along);
    const float both = along.total();
    const auto width = static_cast<size_t>(head.v_dim);
    Floats expected(width, 0.0f), read(width, 0.0f), out(width);
    for (int i = 0; i < head.k_dim; ++i) {
        const auto row = static_cast<size_t>(i);
        add_times(token.k[row], &head.s[row * width], expected.data(), head.v_dim);
        add_times(token.q[row], &head.s[row * width], read.data(), head.v_dim);
    }
    Floats correction(width);
    for (size_t j = 0; j < width; ++j) {
        correction[j] = token.beta * (token.v[j] - token.decay * expected[j]);
        out[j] = std::fma(both, correction[j], token.decay * read[j]);
    }
    for (float& s : head.s) s *= token.decay;
    for (int i = 0; i < head.k_dim; ++i) {
        const auto row = static_cast<size_t>(i);
        add_times(token.k[row], correction.data(), &head.s[row * width], head.v_dim);
    }
    return out;
}

// x with this length.
inline void set_length(Floats& x, float length, float eps) {
    Lanes squares;
    float_dot(x.data(), x.data(), static_cast<int>(x.size()), squares);
    const float factor = length / std::sqrt(squares.total() + eps);
    for (float& value : x) value *= factor;
}

// What the convolution makes of the last of these tokens. weight: (channels, taps)
inline Floats convolved(const std::vector<Floats>& tokens, const Floats& weight, int taps) {
    Floats out;
    for (size_t c = 0; c < tokens.back().size(); ++c) {
        float sum = 0;
        for (int j = 0; j < taps; ++j) {
            const int token = static_cast<int>(tokens.size()) - taps + j;
            const float x = token < 0 ? 0.0f : tokens[static_cast<size_t>(token)][c];
            sum = std::fma(weight[c * static_cast<size_t>(taps) + static_cast<size_t>(j)], x, sum);
        }
        out.push_back(sum / (1.0f + exp_of(0.0f - sum)));
    }
    return out;
}

// What one layer has been given of a sequence, and its states.
struct DeltaMemory {
    std::vector<Floats> tokens;  // channels of each, as they come
    std::map<int, DeltaHead> heads;

    DeltaHead& state(int head, const onebit::Config& c) {
        const auto size = static_cast<size_t>(c.delta_k_dim) * static_cast<size_t>(c.delta_v_dim);
        return heads.try_emplace(head, DeltaHead{c.delta_k_dim, c.delta_v_dim, Floats(size, 0.0f)}).first->second;
    }
};

// u: the convolved channels of a token: queries, keys and values.
inline DeltaToken token_of(const Floats& u, const onebit::Config& c, int key, int head, float decay, float beta) {
    const auto cut = [&](int from, int n) { return Floats(u.begin() + from, u.begin() + from + n); };
    const int keys = c.delta_k_heads * c.delta_k_dim;
    DeltaToken token{cut(key * c.delta_k_dim, c.delta_k_dim), cut(keys + key * c.delta_k_dim, c.delta_k_dim),
                     cut(2 * keys + head * c.delta_v_dim, c.delta_v_dim), decay, beta};
    set_length(token.q, 1.0f / std::sqrt(static_cast<float>(c.delta_k_dim)), 1e-6f);
    set_length(token.k, 1.0f, 1e-6f);
    return token;
}

}  // namespace reference
