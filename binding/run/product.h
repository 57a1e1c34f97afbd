// Runs a group of linears that read the same activations.
#pragma once

#include "run/plan.h"

namespace onebit {

// Who computes what lies between two attentions: all threads of the pool together, or (no pool) the one that calls.
struct Crew {
    Pool* pool;
    Span span;               // of the step's tokens
    unsigned char* scratch;  // of the groups it computes

    // body(token) for each of the span's.
    template <class Body>
    void each_token(const Body& body) const {
        if (pool) return pool->run(span.count, [&](int i) { body(span.first + i); });
        for (int i = 0; i < span.count; ++i) body(span.first + i);
    }
};

// Where the result of one linear goes: (tokens, stride), from the span's first token on.
struct Target {
    const Linear* linear;
    float* out;
    size_t stride;
};

// targets: of each linear of the group. x: (tokens, x_stride) likewise.
void multiply_group(const Model& model, const GroupPlan& plan, const Crew& crew, const Target* targets, const float* x, size_t x_stride);

}  // namespace onebit
