#include "run/layer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

namespace onebit {

Frame::Frame(const Model& of, const Plan& planned, const Workspace& workspace, const TokenInput* tokens, const int* places)
    : model(of), kernels(*of.kernels), config(of.config), plan(planned), inputs(tokens), positions(places) {
    placed = true;
    const auto find = [&](auto** pointer, Region region) {
        *pointer = workspace.at<std::remove_pointer_t<std::remove_pointer_t<decltype(pointer)>>>(region);
        placed = placed && *pointer;
    };
    find(&x, plan.x);
    find(&normed, plan.normed);
    find(&q, plan.q);
    find(&k, plan.k);
    find(&v, plan.v);
    find(&mixed, plan.mixed);
    find(&inner, plan.inner);
    find(&up, plan.up);
    find(&out, plan.out);
    find(&cos, plan.cos);
    find(&sin, plan.sin);
    find(&logits, plan.logits);
    find(&queries, plan.queries[plan.threads - 1]);  // the last one: then the others do too
    find(&queries, plan.queries[0]);
    find(&scores, plan.scores[plan.threads - 1]);
    find(&scores, plan.scores[0]);
    find(&scratch, plan.scratch[plan.alone ? plan.threads - 1 : 0]);
    find(&scratch, plan.scratch[0]);
    find(&head_scratch, plan.head_scratch);
}

void Frame::normalize(float* to, const float* from, const NormWeights& norm, int n) const {
    if (config.norm == NormKind::rms) {
        kernels.rmsnorm(to, from, norm.weight, n, config.norm_eps);
    } else {
        if (to != from) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
        kernels.layernorm(&to, 1, n, config.norm_eps);
        kernels.multiply(to, to, norm.weight, n);
    }
    if (norm.bias) kernels.add(to, norm.bias, n);
}

namespace {

// KV heads [kv, kv + heads) of token t, with the query heads that read them: normed, rotated, key and value stored.
void rotate_and_store(const Frame& f, int layer, int t, int kv, int heads) {
    const Config& c = f.config;
    const Layer& l = f.model.layers[static_cast<size_t>(layer)];
    const float *cos = f.row(f.cos, f.plan.angles, t), *sin = f.row(f.sin, f.plan.angles, t);
    const auto turn = [&](float* head, const float* norm) {  // (head_dim)
        if (norm) f.kernels.rmsnorm(head, head, norm, c.head_dim, c.norm_eps);
        if (!c.learned_positions) f.kernels.rope(head, cos, sin, c.rotated(), c.rope.interleaved);
    };
    const int group = c.n_heads / c.n_kv_heads, q_step = c.output_gate ? 2 * c.head_dim : c.head_dim;
    float *q = f.row(f.q, f.plan.wq_rows, t), *k = f.row(f.k, f.plan.kv_dim, t), *v = f.row(f.v, f.plan.kv_dim, t);
    for (int h = kv * group; h < (kv + heads) * group; ++h) turn(q + h * q_step, l.q_norm);
    for (int h = kv; h < kv + heads; ++h) {
        turn(k + h * c.head_dim, l.k_norm);
        f.inputs[t].session->store(layer, h, f.positions[t], k + h * c.head_dim, v + h * c.head_dim);
    }
}

// For all tokens and KV heads, unless attention does it itself.
void rotate_and_store_all(const Frame& f, int layer, const Crew& crew) {
    if (f.plan.attention.rotates) return;
    // A few tokens alone are split by heads: writing keys, each of their elements on another cache line, takes time.
    const bool by_heads = crew.pool && crew.span.count < crew.pool->threads();
    const int pieces = by_heads ? f.config.n_kv_heads : 1, heads = f.config.n_kv_heads / pieces;
    const auto piece = [&](int task) {
        rotate_and_store(f, layer, crew.span.first + task / pieces, task % pieces * heads, heads);
    };
    if (crew.pool) return crew.pool->run(crew.span.count * pieces, piece);
    for (int task = 0; task < crew.span.count * pieces; ++task) piece(task);
}

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
        const int first_head = kv * group + task % plan.head_tasks * heads, q_step = c.output_gate ? 2 * c.head_dim : c.head_dim;
        if (plan.rotates) rotate_and_store(f_, layer_, tokens.first, kv, 1);
        auto* queries = reinterpret_cast<AttendQuery*>(f_.queries + static_cast<size_t>(thread) * f_.plan.queries.stride);
        auto* scores = reinterpret_cast<float*>(f_.scores + static_cast<size_t>(thread) * f_.plan.scores.stride);
        int n = 0;
        for (int t = tokens.first; t < tokens.first + tokens.count; ++t) {
            const int end = f_.positions[t] + 1, first = c.window > 0 ? std::max(0, end - c.window) : 0;
            const float* q = f_.row(f_.q, f_.plan.wq_rows, t);
            float* mixed = f_.row(f_.mixed, f_.plan.q_dim, t);
            for (int h = first_head; h < first_head + heads; ++h) {
                queries[n++] = {q + h * q_step, mixed + h * c.head_dim, first, end};
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
            if (++layer == f_.config.n_layers) return nullptr;
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
    crew.each_token([&](int t) {  // normed (dim) = norm(x)
        f.normalize(f.row(f.normed, p.dim, t), f.row(f.x, p.dim, t), l.attention_norm, f.config.dim);
    });
    // q (wq_rows), k (kv_dim), v (kv_dim) = wq, wk, wv normed
    const Target targets[] = {{&l.wq, f.row(f.q, p.wq_rows, first), p.wq_rows},
                              {&l.wk, f.row(f.k, p.kv_dim, first), p.kv_dim},
                              {&l.wv, f.row(f.v, p.kv_dim, first), p.kv_dim}};
    multiply_group(f.model, p.layers[static_cast<size_t>(l.like)].qkv, crew, targets, f.row(f.normed, p.dim, first), p.dim);
    rotate_and_store_all(f, layer, crew);
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
    const int first = crew.span.first;
    if (c.output_gate) {  // mixed (q_dim) *= sigmoid(gate); q and gate of a head lie side by side
        crew.each_token([&](int t) {
            float *mixed = f.row(f.mixed, p.q_dim, t), *gate = f.row(f.q, p.wq_rows, t) + c.head_dim;
            for (int h = 0; h < c.n_heads; ++h) f.kernels.gate_by(mixed + h * c.head_dim, gate + 2 * h * c.head_dim, c.head_dim);
        });
    }
    if (c.attention_inner_norm) {  // mixed (q_dim) = norm(mixed)
        crew.each_token([&](int t) {
            float* mixed = f.row(f.mixed, p.q_dim, t);
            f.normalize(mixed, mixed, l.attention_inner_norm, c.q_dim());
        });
    }
    const Target wo[] = {{&l.wo, f.row(f.out, p.dim, first), p.dim}};  // out (dim) = wo mixed
    multiply_group(f.model, p.layers[static_cast<size_t>(l.like)].wo, crew, wo, f.row(f.mixed, p.q_dim, first), p.q_dim);
    crew.each_token([&](int t) { f.kernels.add(f.row(f.x, p.dim, t), f.row(f.out, p.dim, t), c.dim); });  // x += out
}

void feed_forward(const Frame& f, int layer, const Crew& crew) {
    const Layer& l = f.model.layers[static_cast<size_t>(layer)];
    const Config& c = f.config;
    const Plan& p = f.plan;
    const LayerPlan& groups = p.layers[static_cast<size_t>(l.like)];
    const int first = crew.span.first;
    crew.each_token([&](int t) {  // normed (dim) = norm(x)
        f.normalize(f.row(f.normed, p.dim, t), f.row(f.x, p.dim, t), l.ffn_norm, c.dim);
    });
    // inner, up (hidden) = w1, w3 normed; there is no w3 in a plain feed-forward
    const Target w1_w3[] = {{&l.w1, f.row(f.inner, p.hidden, first), p.hidden}, {&l.w3, f.row(f.up, p.hidden, first), p.hidden}};
    multiply_group(f.model, groups.up, crew, w1_w3, f.row(f.normed, p.dim, first), p.dim);
    crew.each_token([&](int t) {  // inner (hidden) = act(inner) * up, or act(inner); then its norm
        float* inner = f.row(f.inner, p.hidden, t);
        f.kernels.activate(inner, inner, c.gated ? f.row(f.up, p.hidden, t) : nullptr, c.hidden_dim, c.activation);
        if (c.ffn_inner_norm) f.normalize(inner, inner, l.ffn_inner_norm, c.hidden_dim);
    });
    const Target w2[] = {{&l.w2, f.row(f.out, p.dim, first), p.dim}};  // out (dim) = w2 inner
    multiply_group(f.model, groups.down, crew, w2, f.row(f.inner, p.hidden, first), p.hidden);
    crew.each_token([&](int t) { f.kernels.add(f.row(f.x, p.dim, t), f.row(f.out, p.dim, t), c.dim); });  // x += out
}

}  // namespace onebit
