#include "run/layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace onebit {

void Normalize::operator()(int t) const {
    const size_t row = static_cast<size_t>(t) * stride;
    float* to = out + row;
    if (f.config.norm == NormKind::rms) {
        f.kernels.rmsnorm(to, x + row, norm.weight, n, f.config.norm_eps);
    } else {
        if (out != x) std::memcpy(to, x + row, static_cast<size_t>(n) * sizeof(float));
        f.kernels.layernorm(&to, 1, n, f.config.norm_eps);
        f.kernels.multiply(to, to, norm.weight, n);
    }
    if (norm.bias) f.kernels.add(to, norm.bias, n);
}

namespace {

// Query heads lie this far apart; with a gate, each head's gate lies behind it.
int q_step(const Config& c) { return c.output_gate ? 2 * c.head_dim : c.head_dim; }

// One KV head of one token, and the query heads that read it: normed and rotated, key and value stored. A task is a token's
// head, because writing keys, each of their elements on another cache line, takes time.
struct Rotate {
    const Frame& f;
    int layer;

    void operator()(int task) const {
        const Config& c = f.config;
        const Layer& l = f.model.layers[static_cast<size_t>(layer)];
        const int t = task / c.n_kv_heads, kv = task % c.n_kv_heads, group = c.n_heads / c.n_kv_heads;
        const float *cos = f.row(f.cos, f.plan.angles, t), *sin = f.row(f.sin, f.plan.angles, t);
        float* q = f.row(f.q, f.plan.wq_rows, t) + kv * group * q_step(c);
        float* k = f.row(f.k, f.plan.kv_dim, t) + kv * c.head_dim;
        for (int h = 0; h <= group; ++h) {
            float* head = h < group ? q + h * q_step(c) : k;
            if (c.qk_norm) f.kernels.rmsnorm(head, head, h < group ? l.q_norm : l.k_norm, c.head_dim, c.norm_eps);
            if (!c.learned_positions) f.kernels.rope(head, cos, sin, c.rotated(), c.rope.interleaved);
        }
        f.inputs[t].session->store(layer, kv, f.positions[t], k, f.row(f.v, f.plan.kv_dim, t) + kv * c.head_dim);
    }
};

// The tasks of one layer's attention. Every (token, head) is on its own, so how they are dealt out cannot change a result.
class Attention final : public Task {
public:
    Attention(const Frame& f, int layer, const Pool& pool)
        : f_(f), layer_(layer), pool_(pool), scale_(1.0f / std::sqrt(static_cast<float>(f.config.head_dim))) {}

    // Some query heads that share a KV head, of the tokens of a block.
    void run(int task, int thread) override {
        const Config& c = f_.config;
        const AttentionPlan& plan = f_.plan.attention;
        const Span tokens = plan.block[task / plan.tasks_per_block];
        const int kv = kv_of(task), group = c.n_heads / c.n_kv_heads, heads = group / plan.head_tasks;
        const int first_head = kv * group + task % plan.head_tasks * heads;
        if (plan.rotates) Rotate{f_, layer_}(tokens.first * c.n_kv_heads + kv);
        auto* queries = f_.memory.at<AttendQuery>(f_.plan.queries[thread]);
        float* scores = f_.at(f_.plan.scores[thread]);
        int n = 0;
        for (int t = tokens.first; t < tokens.first + tokens.count; ++t) {
            const int end = f_.positions[t] + 1, first = c.window > 0 ? std::max(0, end - c.window) : 0;
            const float* q = f_.row(f_.q, f_.plan.wq_rows, t);
            float* mixed = f_.row(f_.mixed, f_.plan.q_dim, t);
            for (int h = first_head; h < first_head + heads; ++h) {
                queries[n++] = {q + h * q_step(c), mixed + h * c.head_dim, first, end};
            }
        }
        f_.kernels.attend(queries, n, f_.inputs[tokens.first].session->kv_head(layer_, kv), c.head_dim, scale_, scores,
                          keys_after(task, thread));
    }

private:
    int kv_of(int task) const { return task % f_.plan.attention.tasks_per_block / f_.plan.attention.head_tasks; }

    // The keys that a thread meets after those of a task: of its next one, or of its first one in the next layer.
    const void* keys_after(int task, int thread) const {
        const AttentionPlan& plan = f_.plan.attention;
        int next = task + 1, layer = layer_;
        if (next >= pool_.first_of(plan.tasks(), thread + 1) || next <= pool_.first_of(plan.tasks(), thread)) {
            if (++layer == f_.config.n_layers || f_.model.layers[static_cast<size_t>(layer)].is_delta) return nullptr;
            next = pool_.first_of(plan.tasks(), thread);
        }
        const Span tokens = plan.block[next / plan.tasks_per_block];
        return f_.inputs[tokens.first].session->kv_head(layer, kv_of(next)).k;
    }

    const Frame& f_;
    int layer_;
    const Pool& pool_;
    float scale_;  // by a square root that is exact in float on every machine
};

}  // namespace

// ---- a layer ---------------------------------------------------------------------------------------------

void project(const Frame& f, int layer, const Crew& crew) {
    const Layer& l = f.model.layers[static_cast<size_t>(layer)];
    const Plan& p = f.plan;
    const int first = crew.span.first;
    crew.each(crew.span, Normalize{f, f.normed, f.x, p.dim, l.attention_norm, f.config.dim});  // normed (dim) = norm(x)
    // q (wq_rows), k (kv_dim), v (kv_dim) = wq, wk, wv normed
    const Target targets[] = {{&l.wq, f.row(f.q, p.wq_rows, first), p.wq_rows},
                              {&l.wk, f.row(f.k, p.kv_dim, first), p.kv_dim},
                              {&l.wv, f.row(f.v, p.kv_dim, first), p.kv_dim}};
    multiply_group(f.model, p.layers[static_cast<size_t>(l.like)].qkv, crew, targets, f.row(f.normed, p.dim, first), p.dim);
    if (p.attention.rotates) return;
    const int heads = f.config.n_kv_heads;
    crew.each({first * heads, crew.span.count * heads}, Rotate{f, layer});
}

// mixed (q_dim) = for each query head: softmax(q . keys / sqrt(head_dim)) . values, over the positions up to its own
void attend(const Frame& f, int layer, Pool& pool) {
    Attention attention(f, layer, pool);
    pool.run(f.plan.attention.tasks(), attention);
}

void mix(const Frame& f, int layer, const Crew& crew) {
    const Layer& l = f.model.layers[static_cast<size_t>(layer)];
    const Config& c = f.config;
    const Plan& p = f.plan;
    if (c.output_gate) {  // mixed (q_dim) *= sigmoid(gate); q and gate of a head lie side by side
        crew.each(crew.span, [&](int t) {
            float *mixed = f.row(f.mixed, p.q_dim, t), *gate = f.row(f.q, p.wq_rows, t) + c.head_dim;
            for (int h = 0; h < c.n_heads; ++h) f.kernels.gate_by(mixed + h * c.head_dim, gate + 2 * h * c.head_dim, c.head_dim);
        });
    }
    if (c.attention_inner_norm) crew.each(crew.span, Normalize{f, f.mixed, f.mixed, p.q_dim, l.attention_inner_norm, c.q_dim()});
    add_output(f, layer, crew, f.mixed, p.q_dim);
}

void add_output(const Frame& f, int layer, const Crew& crew, float* mixed, size_t stride) {
    const Layer& l = f.model.layers[static_cast<size_t>(layer)];
    const Config& c = f.config;
    const Plan& p = f.plan;
    const int first = crew.span.first;
    const Target wo[] = {{&l.wo, f.row(f.out, p.dim, first), p.dim}};  // out (dim) = wo mixed
    multiply_group(f.model, p.layers[static_cast<size_t>(l.like)].wo, crew, wo, f.row(mixed, stride, first), stride);
    // Both read the same x: what the feed-forward reads is made before x changes.
    if (c.parallel_residual) crew.each(crew.span, Normalize{f, f.normed, f.x, p.dim, l.ffn_norm, c.dim});
    crew.each(crew.span, [&](int t) { f.kernels.add(f.row(f.x, p.dim, t), f.row(f.out, p.dim, t), c.dim); });  // x += out
}

void feed_forward(const Frame& f, int layer, const Crew& crew) {
    const Layer& l = f.model.layers[static_cast<size_t>(layer)];
    const Config& c = f.config;
    const Plan& p = f.plan;
    const LayerPlan& groups = p.layers[static_cast<size_t>(l.like)];
    const int first = crew.span.first;
    // normed (dim) = norm(x)
    if (!c.parallel_residual) crew.each(crew.span, Normalize{f, f.normed, f.x, p.dim, l.ffn_norm, c.dim});
    // inner, up (hidden) = w1, w3 normed; there is no w3 in a plain feed-forward
    const Target w1_w3[] = {{&l.w1, f.row(f.inner, p.hidden, first), p.hidden}, {&l.w3, f.row(f.up, p.hidden, first), p.hidden}};
    multiply_group(f.model, groups.up, crew, w1_w3, f.row(f.normed, p.dim, first), p.dim);
    crew.each(crew.span, [&](int t) {  // inner (hidden) = act(inner) * up, or act(inner)
        float* inner = f.row(f.inner, p.hidden, t);
        f.kernels.activate(inner, inner, c.gated ? f.row(f.up, p.hidden, t) : nullptr, c.hidden_dim, c.activation);
    });
    if (c.ffn_inner_norm) crew.each(crew.span, Normalize{f, f.inner, f.inner, p.hidden, l.ffn_inner_norm, c.hidden_dim});
    const Target w2[] = {{&l.w2, f.row(f.out, p.dim, first), p.dim}};  // out (dim) = w2 inner
    multiply_group(f.model, groups.down, crew, w2, f.row(f.inner, p.hidden, first), p.hidden);
    crew.each(crew.span, [&](int t) { f.kernels.add(f.row(f.x, p.dim, t), f.row(f.out, p.dim, t), c.dim); });  // x += out
}

}  // namespace onebit
