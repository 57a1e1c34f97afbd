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

// A layer, in the order of these. They keep to the crew's tokens, and need other tokens only through the cache.
void project(const Frame& f, int layer, const Crew& crew);       // x -> q, k, v; keys and values into the cache
void attend(const Frame& f, int layer, Pool& pool);              // q and the cache -> mixed, of all tokens
void mix(const Frame& f, int layer, const Crew& crew);           // mixed -> x
void feed_forward(const Frame& f, int layer, const Crew& crew);  // x -> x

}  // namespace onebit
