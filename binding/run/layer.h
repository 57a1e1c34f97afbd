// What one layer computes, apart from who computes it: see plan.h for that.
#pragma once

#include "run/product.h"

namespace onebit {

// Where a step's activations lie, and what it works on. Pointers are to the first token's; tokens lie the plan's strides
// apart.
struct Frame {
    const Model& model;
    const Plan& plan;
    const Workspace& memory;
    const TokenInput* inputs;
    const int* positions;
    const KernelSet& kernels = *model.kernels;
    const Config& config = model.config;

    float *x = at(plan.x), *normed = at(plan.normed), *q = at(plan.q), *k = at(plan.k), *v = at(plan.v), *mixed = at(plan.mixed);
    float *inner = at(plan.inner), *up = at(plan.up), *out = at(plan.out), *logits = at(plan.logits);
    float *cos = at(plan.cos), *sin = at(plan.sin);
    float *channel = at(plan.channel), *z = at(plan.z), *beta = at(plan.beta), *alpha = at(plan.alpha), *recalled = at(plan.recalled);

    float* at(Region region) const { return memory.at<float>(region); }
    static float* row(float* base, size_t stride, int t) { return base + static_cast<size_t>(t) * stride; }
};

// For each token: out (n) = norm of x (n) by the model's kind of norm. out may be x; their tokens lie `stride` apart.
struct Normalize {
    const Frame& f;
    float* out;
    const float* x;
    size_t stride;
    const NormWeights& norm;
    int n;
    void operator()(int t) const;
};

// A layer, in the order of these. They keep to the crew's tokens, and need other tokens only through the session.
void project(const Frame& f, int layer, const Crew& crew);       // x -> q, k, v; keys and values into the cache
void attend(const Frame& f, int layer, Pool& pool);              // q and the cache -> mixed, of all tokens
void mix(const Frame& f, int layer, const Crew& crew);           // mixed -> x
// The same three of a layer with the delta rule (delta.cpp).
void project_delta(const Frame& f, int layer, const Crew& crew);  // x -> channel, z, beta, alpha
void recall(const Frame& f, int layer, Pool& pool);               // those and the session's state -> recalled, of all tokens
void mix_delta(const Frame& f, int layer, const Crew& crew);      // recalled -> x
void feed_forward(const Frame& f, int layer, const Crew& crew);  // x -> x

// x += wo mixed, where both kinds of mixing end.
void add_output(const Frame& f, int layer, const Crew& crew, float* mixed, size_t stride);

}  // namespace onebit
