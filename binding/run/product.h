// Runs a group of linears that read the same activations.
#pragma once

#include "run/plan.h"

namespace onebit {

// Who computes what lies between two attentions: all threads of the pool together, or (no pool) the one that calls.
struct Crew {
    Pool* pool;
    Span span;               // of the step's tokens
    unsigned char* scratch;  // of the groups it computes

    // body(i) for each i of [range.first, range.first + range.count).
    template <class Body>
    void each(Span range, const Body& body) const {
        Loop<Body> loop(body, range.first);
        if (pool) return pool->run(range.count, static_cast<Task&>(loop));
        for (int task = 0; task < range.count; ++task) loop.run(task, 0);
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
