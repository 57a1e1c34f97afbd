// What one layer computes, apart from who computes it: see plan.h for that.
#pragma once

#include "run/product.h"

namespace onebit {

// Where a step's activations lie, and what it works on. Pointers are to the first token's; tokens lie the plan's strides
// apart.
struct Frame {
    Frame(const Model& model, const Plan& plan, const Workspace& workspace, const TokenInput* inputs, const int* positions);

    const Model& model;
    const KernelSet& kernels;
    const Config& config;
    const Plan& plan;
    const TokenInput* inputs;
    const int* positions;

    float *x, *normed, *q, *k, *v, *mixed, *inner, *up, *out, *cos, *sin, *logits;
    unsigned char *queries, *scores, *scratch, *head_scratch;
    bool placed;  // whether everything lies inside the workspace

    static float* row(float* base, size_t stride, int t) { return base + static_cast<size_t>(t) * stride; }
    // out (n) = norm of x (n) by the model's kind of norm; out may be x.
    void normalize(float* out, const float* x, const NormWeights& norm, int n) const;
};

// A layer, in the order of these. They keep to the crew's tokens, and need other tokens only through the cache.
void project(const Frame& f, int layer, const Crew& crew);       // x -> q, k, v; keys and values into the cache
void attend(const Frame& f, int layer, Pool& pool);              // q and the cache -> mixed, of all tokens
void mix(const Frame& f, int layer, const Crew& crew);           // mixed -> x
void feed_forward(const Frame& f, int layer, const Crew& crew);  // x -> x

}  // namespace onebit
