// A layer that mixes by the gated delta rule: each value head keeps a matrix that every token decays, corrects and reads.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/math.h"
#include "run/layer.h"

namespace onebit {

namespace {

// Inside the root of the length of queries and keys.
constexpr float kLengthEps = 1e-6f;

// What a thread works in: some tokens of one key head and of one of its value heads, each token's numbers together.
struct DeltaScratch {
    DeltaScratch(const Frame& f, int thread) {
        const DeltaPlan& plan = f.plan.delta;
        const auto tokens = static_cast<size_t>(plan.block_tokens);
        q = f.at(f.plan.delta_scratch[thread]);
        k = q + tokens * static_cast<size_t>(plan.k_row);
        v = k + tokens * static_cast<size_t>(plan.k_row);
        out = v + tokens * static_cast<size_t>(plan.v_row);
        decay = out + tokens * static_cast<size_t>(plan.v_row);
        beta = decay + tokens;
    }
    float *q, *k, *v, *out, *decay, *beta;
};

// The tasks of one layer: a session's tokens and a key head with the value heads that read it. Every head is on its own and
// goes through its tokens in their order, so how they are dealt out, and how steps cut the tokens, cannot change a result.
class DeltaRule final : public Task {
public:
    DeltaRule(const Frame& f, int layer)
        : f_(f), c_(f.config), layer_(layer), weights_(f.model.layers[static_cast<size_t>(layer)].delta),
          query_length_(1.0f / std::sqrt(static_cast<float>(c_.delta_k_dim))) {}

    int tasks() const { return f_.plan.delta.blocks * c_.delta_k_heads; }

    void run(int task, int thread) override {
        const Span tokens = f_.plan.delta.block[task / c_.delta_k_heads];
        const int key_head = task % c_.delta_k_heads;
        const DeltaScratch scratch(f_, thread);
        const DeltaState state = f_.inputs[tokens.first].session->delta_state(layer_);
        const int k_dim = c_.delta_k_dim, keys = c_.delta_k_heads * k_dim, key_channel = key_head * k_dim;
        const int heads = c_.delta_v_heads / c_.delta_k_heads;
        for (int done = 0; done < tokens.count;) {
            const int end = done < state.tail_at ? state.tail_at : tokens.count;
            const Part part{tokens, done, std::min(f_.plan.delta.block_tokens, end - done)};
            convolve(state, part, scratch.q, f_.plan.delta.k_row, key_channel, k_dim);
            convolve(state, part, scratch.k, f_.plan.delta.k_row, keys + key_channel, k_dim);
            for (int t = 0; t < part.count; ++t) {
                const auto row = static_cast<size_t>(t) * static_cast<size_t>(f_.plan.delta.k_row);
                f_.kernels.unit_length(scratch.q + row, k_dim, kLengthEps, query_length_);
                f_.kernels.unit_length(scratch.k + row, k_dim, kLengthEps, 1.0f);
            }
            for (int i = 0; i < heads; ++i) value_head(state, part, scratch, value_head_of(key_head, i));
            done += part.count;
            if (state.tail && done == state.tail_at) keep_tail(state, tokens, key_head);
        }
        keep_columns(state, tokens, key_head, tokens.count, state.next_columns);
    }

private:
    // Some of a session's tokens: count of them from number `done` on.
    struct Part {
        Span tokens;
        int done, count;
    };

    int value_head_of(int key_head, int i) const {
        const int ratio = c_.delta_v_heads / c_.delta_k_heads;
        return c_.delta_tiled ? i * c_.delta_k_heads + key_head : key_head * ratio + i;
    }
    int value_channel(int head) const { return 2 * c_.delta_k_heads * c_.delta_k_dim + head * c_.delta_v_dim; }

    // What token number `index` of this step has in a channel; negative ones are of the steps before.
    const float* column(const DeltaState& state, Span tokens, int index, int channel) const {
        if (index >= 0) return f_.row(f_.channel, f_.plan.channels, tokens.first + index) + channel;
        return state.columns + (c_.delta_conv - 1 + index) * c_.delta_channels() + channel;
    }

    // out (count, row): n channels from `channel` on.
    void convolve(const DeltaState& state, const Part& part, float* out, int row, int channel, int n) const {
        const auto stride = static_cast<size_t>(padded(c_.delta_channels(), 16));
        const float* taps[kMaxConv];
        for (int t = 0; t < part.count; ++t, out += row) {
            for (int j = 0; j < c_.delta_conv; ++j) taps[j] = column(state, part.tokens, part.done + t + 1 + j - c_.delta_conv, channel);
            f_.kernels.convolve(out, taps, weights_.conv + channel, stride, c_.delta_conv, n);
        }
    }

    // The last columns of a key head and its value heads after `count` tokens of the step.
    void keep_columns(const DeltaState& state, Span tokens, int key_head, int count, float* to) const {
        const auto keep = [&](int channel, int n) {
            for (int j = 0; j + 1 < c_.delta_conv; ++j) {
                const float* from = column(state, tokens, count + 1 + j - c_.delta_conv, channel);
                std::memcpy(to + j * c_.delta_channels() + channel, from, static_cast<size_t>(n) * sizeof(float));
            }
        };
        keep(key_head * c_.delta_k_dim, c_.delta_k_dim);
        keep((c_.delta_k_heads + key_head) * c_.delta_k_dim, c_.delta_k_dim);
        for (int i = 0; i < c_.delta_v_heads / c_.delta_k_heads; ++i) keep(value_channel(value_head_of(key_head, i)), c_.delta_v_dim);
    }

    void keep_tail(const DeltaState& state, Span tokens, int key_head) const {
        keep_columns(state, tokens, key_head, state.tail_at, state.tail_columns);
        const size_t size = static_cast<size_t>(f_.plan.delta.v_row) * static_cast<size_t>(c_.delta_k_dim);
        for (int i = 0; i < c_.delta_v_heads / c_.delta_k_heads; ++i) {
            const size_t place = static_cast<size_t>(value_head_of(key_head, i)) * size;
            std::memcpy(state.tail + place, state.next + place, size * sizeof(float));
        }
    }

    void value_head(const DeltaState& state, const Part& part, const DeltaScratch& scratch, int head) const {
        const int v_dim = c_.delta_v_dim, v_row = f_.plan.delta.v_row;
        convolve(state, part, scratch.v, v_row, value_channel(head), v_dim);
        for (int t = 0; t < part.count; ++t) {
            std::fill(scratch.v + t * v_row + v_dim, scratch.v + (t + 1) * v_row, 0.0f);
            gates(part.tokens.first + part.done + t, head, scratch.decay + t, scratch.beta + t);
        }
        const DeltaSteps steps{.count = part.count, .q = scratch.q, .k = scratch.k, .v = scratch.v,
                               .k_stride = static_cast<size_t>(f_.plan.delta.k_row), .v_stride = static_cast<size_t>(v_row),
                               .decay = scratch.decay, .beta = scratch.beta, .out = scratch.out};
        const size_t place = static_cast<size_t>(head) * static_cast<size_t>(v_row) * static_cast<size_t>(c_.delta_k_dim);
        f_.kernels.delta_rule(state.next + place, (part.done == 0 ? state.now : state.next) + place, steps, c_.delta_k_dim, v_dim);
        for (int t = 0; t < part.count; ++t) {  // recalled = norm(out) * silu(z)
            const int token = part.tokens.first + part.done + t;
            float *out = scratch.out + t * v_row, *recalled = f_.row(f_.recalled, f_.plan.delta_inner, token) + head * v_dim;
            f_.kernels.rmsnorm(out, out, weights_.norm, v_dim, c_.norm_eps);
            const float* z = f_.row(f_.z, f_.plan.delta_inner, token) + head * v_dim;
            f_.kernels.activate(recalled, z, out, v_dim, Activation::silu);
        }
    }

    // decay = exp(A softplus(alpha + time_bias)), beta = sigmoid(beta), in double: there are few of them, and a state remembers
    // what is wrong with them.
    void gates(int token, int head, float* decay, float* beta) const {
        const float alpha = f_.row(f_.alpha, f_.plan.delta_heads, token)[head] + weights_.time_bias[head];
        const auto x = static_cast<double>(alpha);
        const double softplus = (x > 0 ? x : 0.0) + log_exact(1.0 + exp_exact(x > 0 ? -x : x));
        *decay = static_cast<float>(exp_exact(static_cast<double>(weights_.decay[head]) * softplus));
        *beta = static_cast<float>(1.0 / (1.0 + exp_exact(-static_cast<double>(f_.row(f_.beta, f_.plan.delta_heads, token)[head]))));
    }

    const Frame& f_;
    const Config& c_;
    int layer_;
    const DeltaWeights& weights_;
    float query_length_;
};

}  // namespace

void project_delta(const Frame& f, int layer, const Crew& crew) {
    const Layer& l = f.model.layers[static_cast<size_t>(layer)];
    const Plan& p = f.plan;
    const int first = crew.span.first;
    crew.each(crew.span, Normalize{f, f.normed, f.x, p.dim, l.attention_norm, f.config.dim});  // normed (dim) = norm(x)
    const Target targets[] = {{&l.delta.qkv, f.row(f.channel, p.channels, first), p.channels},
                              {&l.delta.z, f.row(f.z, p.delta_inner, first), p.delta_inner},
                              {&l.delta.beta, f.row(f.beta, p.delta_heads, first), p.delta_heads},
                              {&l.delta.alpha, f.row(f.alpha, p.delta_heads, first), p.delta_heads}};
    multiply_group(f.model, p.layers[static_cast<size_t>(l.like)].qkv, crew, targets, f.row(f.normed, p.dim, first), p.dim);
}

void recall(const Frame& f, int layer, Pool& pool) {
    DeltaRule rule(f, layer);
    pool.run(rule.tasks(), rule);
}

void mix_delta(const Frame& f, int layer, const Crew& crew) { add_output(f, layer, crew, f.recalled, f.plan.delta_inner); }

}  // namespace onebit
