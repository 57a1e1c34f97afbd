// How a step is shared out among the threads, and where everything of it lies: decided here, once a step, from shapes,
// tokens, sessions and threads. Whoever lays out memory and whoever computes look at the same plan.
//
// The words: a *span* is some consecutive tokens, a *band* some consecutive rows of matrices, a *tile* some columns. A
// *group* is up to four linears that read the same activations.
#pragma once

#include <vector>

#include "model/model.h"
#include "run/session.h"
#include "system/workspace.h"

namespace onebit {

constexpr int kMaxStepTokens = 256;

struct TokenInput {
    Session* session;
    int32_t token;
    bool want_logits;
    bool want_hidden = false;  // the state after the final norm
    // See Session::begin_step: a text ends with it, and something else will follow; it belongs to an answer that is under way.
    bool ends = false, answers = false;
};

struct Span {
    int first, count;
};

constexpr int kGroupMost = 4;  // what a layer of the delta rule begins with; an attention has three

// One matrix of a group. Regions are relative to the memory of whoever computes the group.
struct ProductPlan {
    const Linear* linear = nullptr;  // one of those that this plan serves: of the first layer that is like the others
    int index = 0;                   // in the group
    Tiling tiling;
    Region q, scale, offsets, x, tables;  // prepared activations, a slot a token
    Region sums;
};

// Matrices that are multiplied together: the same stage of their linears, their activations prepared by the same threads.
struct Batch {
    int stage = 0;
    // Every thread prepares the activations of a span for itself, when it first meets it; otherwise all threads prepare all
    // tokens before they multiply.
    bool own = false;
    int spans = 1, span_tokens = 0, bands = 1;  // a task is a span and a band
    int count = 0;
    ProductPlan product[kGroupMost];
    uint64_t begin[kGroupMost + 1] = {};  // bytes of weights before each

    // The first row of product i in band number `band`, which ends where the next begins: bands have about equally many bytes.
    int row_at(int i, int band) const;
};

struct GroupPlan {
    explicit GroupPlan(size_t gap = 0) : layout(gap) {}

    int count = 0;                // linears
    int tokens = 0, threads = 1;  // tokens: at most
    int batches = 0;
    Batch batch[4];            // two stages, own or not
    Region inner[kGroupMost];  // (tokens, padded(rank, 64)) the vector between the two matrices of a chain
    Region front;              // (threads, front_cols) what stands in front of a linear, applied to one token's x
    size_t front_cols = 0;     // 0: nothing does
    Layout layout;
};

// The groups of a layer, of the layers that are like it too. qkv: what it begins with, wo: what its mixer ends with.
struct LayerPlan {
    GroupPlan qkv, wo, up, down;
};

// The tokens of each session go one after the other through the delta rule; heads are what threads share.
struct DeltaPlan {
    int blocks = 0;               // all tokens of one session
    Span block[kMaxStepTokens];
    int block_tokens = 0;         // of the thread's memory: at most so many are convolved at a time
    int k_row = 0, v_row = 0;     // floats from a token to the next in that memory
};

struct AttentionPlan {
    int blocks = 0;              // spans of tokens of one session, which read the same keys and values
    Span block[kMaxStepTokens];
    int head_tasks = 1;          // tasks that share the query heads of one KV head
    int tasks_per_block = 1;
    int most_queries = 1;        // of one task
    // Every token is alone in its session, and one task attends for all query heads of a KV head: it can rotate them and
    // store their key too, and the threads meet once less.
    bool rotates = false;

    int tasks() const { return blocks * tasks_per_block; }
};

class Plan {
public:
    // gap: of the workspace that the step will use.
    Plan(const Model& model, int threads, const TokenInput* inputs, const int* positions, int n, size_t gap);

    int tokens, threads;
    // What lies between two attentions goes span by span, each thread in a span of its own, or (one span) all threads
    // together: the more tokens, the less the threads have to meet.
    bool alone = false;
    int spans = 1, span_tokens;
    AttentionPlan attention;
    DeltaPlan delta;                // of a model that has such layers
    std::vector<LayerPlan> layers;  // by Layer::like; those that no layer is like stay empty
    GroupPlan head;
    int logit_rows = 0;             // tokens whose logits are made at a time

    // Floats from a token to the next.
    size_t dim, wq_rows, kv_dim, q_dim, hidden, vocab, angles;
    size_t channels = 0, delta_inner = 0, delta_heads = 0;  // of layers with the delta rule
    Region x, normed, q, k, v, mixed, inner, up, out, cos, sin, logits;  // (n, …)
    Region channel, z, beta, alpha, recalled;                            // likewise, of those layers
    Regions queries, scores;  // of attention, one a thread
    Regions delta_scratch;    // of the delta rule, one a thread
    Regions scratch;          // of a layer's groups, one for whoever computes them
    Region head_scratch;
    Layout layout;

private:
    void plan_spans(int n);
    void plan_attention(const Config& config, const TokenInput* inputs, int n);
    void plan_delta(const Config& config, const TokenInput* inputs, int n);
    void plan_layers(const Model& model, size_t gap);
    void lay_out(const Model& model, const int* positions, int n);
    void lay_out_delta(const Config& config, int n);

    size_t scratch_bytes_ = 0;  // of the largest group
};

}  // namespace onebit
