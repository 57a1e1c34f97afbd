#include "run/forward.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <initializer_list>
#include <string>

#include "run/linear.h"

namespace onebit {

namespace {

// Logits are made for this many tokens at a time: enough to read the head's rows once for several tokens, few enough
// that a vocabulary of 150,000 needs 10 MB.
constexpr int kLogitRows = 16;

// Tokens that go through the linears of a layer together. With at least kLeastPart for every thread, each thread takes
// some tokens through all that lies between two attentions: their tables and sums stay in its own cache, and the threads
// meet twice a layer instead of a dozen times.
constexpr int kPartTokens = 64, kLeastPart = 8;

// Query heads that meet a tile of keys or values together: enough to use what a load brings, few enough that their
// scores stay in the caches.
constexpr int kQueriesTogether = 24;

// Where everything of one step lies. Strides are in floats.
struct Buffers {
    size_t dim, q_dim, kv_dim, hidden, vocab, scores;  // strides
    float* x;       // (n, dim)    the residual stream
    float* normed;  // (n, dim)    what a block of linears reads
    float* q;       // (n, q_dim)
    float* k;       // (n, kv_dim)
    float* v;       // (n, kv_dim)
    float* mixed;   // (n, q_dim)  attention's result
    float* gate;    // (n, hidden)
    float* up;      // (n, hidden)
    float* out;     // (n, dim)    what wo and w2 return
    float* cos;     // (n, head_dim / 2)
    float* sin;     // (n, head_dim / 2)
    float* score;   // (threads, queries together x (padded head_dim + padded positions)): the scratch of attention
    float* logits;  // (kLogitRows, vocab)
    unsigned char* linears;    // (runners, linears_bytes) scratch of linears
    size_t linears_bytes;
};

// Some of a step's tokens, who computes them, and that one's scratch.
struct Part {
    int first, count;
    Runner runner;
    unsigned char* scratch;

    template <class Body>
    void each_token(const Body& body) const {
        runner.run(count, [&](int i) { body(first + i); });
    }
};

class Step {
public:
    Step(const Model& model, Pool& pool, const TokenInput* inputs, const int* positions, int n)
        : model_(model), kernels_(*model.kernels), config_(model.config), pool_(pool), inputs_(inputs),
          positions_(positions), n_(n) {
        find_together();
        if (n >= kLeastPart * pool.threads()) {
            const int threads = pool.threads(), wanted = (n + kPartTokens - 1) / kPartTokens;
            parts_ = (wanted + threads - 1) / threads * threads;
        }
    }

    // Lays the buffers out; with a null base it only counts. Returns the bytes needed.
    size_t lay_out(unsigned char* base) {
        Carver carver(base);
        Buffers& b = buffers_;
        const auto n = static_cast<size_t>(n_);
        const auto stride = [](int size) { return static_cast<size_t>(padded(size, 64)); };
        b.dim = stride(config_.dim);
        b.q_dim = stride(config_.q_dim());
        b.kv_dim = stride(config_.kv_dim());
        b.hidden = stride(config_.hidden_dim);
        b.vocab = stride(config_.vocab_size);
        const int furthest = *std::max_element(positions_, positions_ + n_) + 1;
        b.scores = static_cast<size_t>(group() * tokens_together()) *
                   static_cast<size_t>(padded(config_.head_dim, 16) + padded(furthest, 16));
        b.x = carver.take<float>(n * b.dim);
        b.normed = carver.take<float>(n * b.dim);
        b.out = carver.take<float>(n * b.dim);
        b.q = carver.take<float>(n * b.q_dim);
        b.k = carver.take<float>(n * b.kv_dim);
        b.v = carver.take<float>(n * b.kv_dim);
        b.mixed = carver.take<float>(n * b.q_dim);
        b.gate = carver.take<float>(n * b.hidden);
        b.up = carver.take<float>(n * b.hidden);
        b.cos = carver.take<float>(n * static_cast<size_t>(config_.head_dim / 2));
        b.sin = carver.take<float>(n * static_cast<size_t>(config_.head_dim / 2));
        b.score = carver.take<float>(static_cast<size_t>(pool_.threads()) * b.scores);
        b.logits = carver.take<float>(std::min(n, static_cast<size_t>(kLogitRows)) * b.vocab);
        lay_out_linears(carver);
        return carver.used();
    }

    void embed() {
        pool_.run(n_, [&](int t) {
            read_row(model_, model_.embedding, inputs_[t].token, row(buffers_.x, buffers_.dim, t));
            model_.rope.angles(positions_[t], angles(buffers_.cos, t), angles(buffers_.sin, t));
        });
    }

    void layer(int index) {
        const Layer& layer = model_.layers[static_cast<size_t>(index)];
        by_parts([&](const Part& part) { queries_keys_values(layer, index, part); });
        attend(index);
        by_parts([&](const Part& part) { mix_and_feed_forward(layer, part); });
    }

    Status logits(const LogitsSink& sink) {
        int wanted[kLogitRows];
        int count = 0;
        for (int t = 0; t < n_; ++t) {
            if (inputs_[t].want_logits) wanted[count++] = t;
            const bool last = t + 1 == n_;
            if (count == 0 || (count < kLogitRows && !last)) continue;
            if (Status status = logits_of(wanted, count, sink); !status.ok()) return status;
            count = 0;
        }
        return {};
    }

private:
    struct Target {
        const Linear* linear;
        float* out;
        size_t stride;
    };

    static float* row(float* base, size_t stride, int t) { return base + static_cast<size_t>(t) * stride; }
    float* angles(float* base, int t) const { return row(base, static_cast<size_t>(config_.head_dim / 2), t); }

    // Calls body for all tokens at once, the whole pool in each of its loops; or with each thread in a part of its own.
    template <class Body>
    void by_parts(const Body& body) {
        if (parts_ == 0) return body(Part{0, n_, Runner(pool_), buffers_.linears});
        const int size = part_size();
        pool_.run(parts_, [&](int p, int thread) {
            const int first = p * size, count = std::min(size, n_ - first);
            unsigned char* scratch = buffers_.linears + static_cast<size_t>(thread) * buffers_.linears_bytes;
            if (count > 0) body(Part{first, count, Runner::of_one_thread(), scratch});
        });
    }
    int part_size() const { return parts_ == 0 ? n_ : (n_ + parts_ - 1) / parts_; }

    void queries_keys_values(const Layer& layer, int index, const Part& part) {
        const Buffers& b = buffers_;
        normalize(layer.attention_norm, part);
        linears({{&layer[Role::wq], b.q, b.q_dim}, {&layer[Role::wk], b.k, b.kv_dim}, {&layer[Role::wv], b.v, b.kv_dim}},
                b.normed, b.dim, part);
        if (rotates_with_attention()) return;
        // A few tokens alone are split by heads: writing keys, each of their elements on another cache line, takes time.
        const int pieces = part.count < part.runner.threads() ? config_.n_kv_heads : 1;
        const int heads = config_.n_kv_heads / pieces;
        part.runner.run(part.count * pieces, [&](int task) {
            rotate_and_store(layer, index, part.first + task / pieces, task % pieces * heads, heads);
        });
    }

    void mix_and_feed_forward(const Layer& layer, const Part& part) {
        const Buffers& b = buffers_;
        linears({{&layer[Role::wo], b.out, b.dim}}, b.mixed, b.q_dim, part);
        add_to_residual(part);
        normalize(layer.ffn_norm, part);
        linears({{&layer[Role::w1], b.gate, b.hidden}, {&layer[Role::w3], b.up, b.hidden}}, b.normed, b.dim, part);
        part.each_token([&](int t) {
            float* gate = row(b.gate, b.hidden, t);
            kernels_.silu_mul(gate, gate, row(b.up, b.hidden, t), config_.hidden_dim);
        });
        linears({{&layer[Role::w2], b.out, b.dim}}, b.gate, b.hidden, part);
        add_to_residual(part);
    }

    // Runs the linears that read x, for one part's tokens.
    template <size_t N>
    void linears(const Target (&targets)[N], const float* x, size_t x_stride, const Part& part) {
        Carver carver(part.scratch);
        const auto first = static_cast<size_t>(part.first);
        LinearCall calls[N];
        for (size_t i = 0; i < N; ++i) {
            const auto& [linear, out, stride] = targets[i];
            calls[i] = prepare_call(model_, part.runner.threads(), *linear, out + first * stride, stride, part.count, &carver);
        }
        run_linears(model_, part.runner, calls, static_cast<int>(N), x + first * x_stride, x_stride, part.count);
    }

    // Bytes that a group of linears needs for n tokens.
    size_t bytes_of(std::initializer_list<const Linear*> group, int threads, int n) const {
        Carver carver(nullptr);
        for (const Linear* linear : group) prepare_call(model_, threads, *linear, nullptr, 0, n, &carver);
        return carver.used();
    }

    // Scratch for the largest group of linears, once for each runner, and for the head, which all threads run together.
    void lay_out_linears(Carver& carver) {
        const int runners = parts_ == 0 ? 1 : pool_.threads(), threads = parts_ == 0 ? pool_.threads() : 1;
        const auto bytes = [&](std::initializer_list<const Linear*> group) { return bytes_of(group, threads, part_size()); };
        size_t most = 0;
        for (const Layer& l : model_.layers) {
            most = std::max({most, bytes({&l[Role::wq], &l[Role::wk], &l[Role::wv]}), bytes({&l[Role::wo]}),
                             bytes({&l[Role::w1], &l[Role::w3]}), bytes({&l[Role::w2]})});
        }
        const size_t head = bytes_of({&model_.head}, pool_.threads(), std::min(n_, kLogitRows));
        buffers_.linears_bytes = most;
        buffers_.linears = carver.take<unsigned char>(std::max(static_cast<size_t>(runners) * most, head));
    }

    void normalize(const float* weight, const Part& part) {
        const Buffers& b = buffers_;
        part.each_token([&](int t) {
            kernels_.rmsnorm(row(b.normed, b.dim, t), row(b.x, b.dim, t), weight, config_.dim, config_.norm_eps);
        });
    }

    void add_to_residual(const Part& part) {
        const Buffers& b = buffers_;
        part.each_token([&](int t) { kernels_.add(row(b.x, b.dim, t), row(b.out, b.dim, t), config_.dim); });
    }

    void rotate(float* head, const float* norm, int t) {
        if (norm) kernels_.rmsnorm(head, head, norm, config_.head_dim, config_.norm_eps);
        kernels_.rope(head, angles(buffers_.cos, t), angles(buffers_.sin, t), config_.head_dim, config_.rope.interleaved);
    }

    // KV heads [kv, kv + heads) of one token, with the query heads that read them.
    void rotate_and_store(const Layer& layer, int index, int t, int kv, int heads) {
        const Buffers& b = buffers_;
        const int dim = config_.head_dim;
        float* q = row(b.q, b.q_dim, t);
        float* k = row(b.k, b.kv_dim, t);
        const float* v = row(b.v, b.kv_dim, t);
        for (int h = kv * group(); h < (kv + heads) * group(); ++h) rotate(q + h * dim, layer.q_norm, t);
        for (int h = kv; h < kv + heads; ++h) {
            rotate(k + h * dim, layer.k_norm, t);
            inputs_[t].session->store(index, h, positions_[t], k + h * dim, v + h * dim);
        }
    }

    // Query heads that share a KV head.
    int group() const { return config_.n_heads / config_.n_kv_heads; }
    int tokens_together() const { return std::max(1, kQueriesTogether / group()); }

    // Tokens [first, first + count) of one session, which read the same keys and values.
    struct Together {
        int first, count;
    };

    void find_together() {
        int& n = blocks_ = 0;
        Together* found = together_;
        for (int t = 0; t < n_; ++t) {
            const bool joins = n > 0 && found[n - 1].count < tokens_together() && inputs_[t - 1].session == inputs_[t].session;
            if (joins) {
                ++found[n - 1].count;
            } else {
                found[n++] = {t, 1};
            }
        }
        parts_of_group_ = choose_parts(n * config_.n_kv_heads);
    }

    // How many tasks share the query heads of a KV head: more tasks keep the threads evenly busy, fewer load K and V
    // less often. Loading is counted as one query head.
    int choose_parts(int tasks) const {
        int best = 1;
        int64_t least = INT64_MAX;
        for (int parts = 1; parts <= group(); ++parts) {
            if (group() % parts != 0) continue;
            const int64_t rounds = (int64_t{tasks} * parts + pool_.threads() - 1) / pool_.threads();
            const int64_t cost = rounds * (group() / parts + 1);
            if (cost < least) {
                least = cost;
                best = parts;
            }
        }
        return best;
    }

    int tasks_per_block() const { return config_.n_kv_heads * parts_of_group_; }
    int attention_tasks() const { return blocks_ * tasks_per_block(); }

    // Every token is alone in its session, and one task attends for all query heads of a KV head: it can prepare them too,
    // and the threads meet once less.
    bool rotates_with_attention() const { return blocks_ == n_ && parts_of_group_ == 1; }

    // Every (token, head) is on its own, so how they are dealt to tasks cannot change a result.
    void attend(int layer) {
        const int parts = parts_of_group_;
        const int per_block = tasks_per_block();
        // dividing by a square root that is exact in float on every machine
        const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
        pool_.run(attention_tasks(), [&](int task, int thread) {
            const int kv = task % per_block / parts;
            const int heads = group() / parts;
            if (rotates_with_attention()) {
                rotate_and_store(model_.layers[static_cast<size_t>(layer)], layer, task / per_block, kv, 1);
            }
            const int first_head = kv * group() + task % parts * heads;
            attend_together(layer, together_[task / per_block], kv, first_head, heads, scale, thread,
                            keys_after(layer, task, thread));
        });
    }

    // The keys that a thread meets after those of a task: of its next one, or of its first one in the next layer.
    const void* keys_after(int layer, int task, int thread) const {
        const int tasks = attention_tasks();
        int next = task + 1;
        if (next >= pool_.first_of(tasks, thread + 1) || next <= pool_.first_of(tasks, thread)) {
            if (++layer == config_.n_layers) return nullptr;
            next = pool_.first_of(tasks, thread);
        }
        const int per_block = tasks_per_block();
        return inputs_[together_[next / per_block].first].session->kv_head(layer, next % per_block / parts_of_group_).k;
    }

    void attend_together(int layer, Together tokens, int kv, int first_head, int heads, float scale, int thread,
                         const void* after) {
        const Buffers& b = buffers_;
        AttendQuery queries[kMaxHeads];
        int n = 0;
        for (int t = tokens.first; t < tokens.first + tokens.count; ++t) {
            for (int h = first_head; h < first_head + heads; ++h) {
                queries[n++] = {row(b.q, b.q_dim, t) + h * config_.head_dim, row(b.mixed, b.q_dim, t) + h * config_.head_dim,
                                positions_[t] + 1, 0.0f};
            }
        }
        kernels_.attend(queries, n, inputs_[tokens.first].session->kv_head(layer, kv), config_.head_dim, scale,
                        row(b.score, b.scores, thread), after);
    }

    Status logits_of(const int* tokens, int count, const LogitsSink& sink) {
        const Buffers& b = buffers_;
        pool_.run(count, [&](int i) {
            kernels_.rmsnorm(row(b.normed, b.dim, i), row(b.x, b.dim, tokens[i]), model_.norm, config_.dim, config_.norm_eps);
        });
        const Part part{0, count, Runner(pool_), b.linears};
        linears({{&model_.head, b.logits, b.vocab}}, b.normed, b.dim, part);
        for (int i = 0; i < count; ++i) {
            const float* logits = row(b.logits, b.vocab, i);
            if (!all_finite(logits, config_.vocab_size)) {
                return error("ERR_NOT_FINITE", "The model gave a logit that is not a number at position " +
                                                   std::to_string(positions_[tokens[i]]) +
                                                   "; its weights are damaged or were not made right.");
            }
            sink(tokens[i], logits);
        }
        return {};
    }

    static bool all_finite(const float* x, int n) {
        uint32_t bad = 0;
        for (int i = 0; i < n; ++i) {
            uint32_t bits;
            std::memcpy(&bits, x + i, sizeof bits);
            bad |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
        }
        return bad == 0;
    }

    const Model& model_;
    const KernelSet& kernels_;
    const Config& config_;
    Pool& pool_;
    const TokenInput* inputs_;
    const int* positions_;
    int n_;
    Buffers buffers_{};
    Together together_[kMaxStepTokens];
    int blocks_ = 0, parts_of_group_ = 1;
    int parts_ = 0;  // of the tokens, a thread in each; 0: all threads are in all tokens
};

// Fills positions and checks that every token has a place and a meaning.
Status place_tokens(const Model& model, const TokenInput* inputs, int n, int* positions) {
    if (n < 1 || n > kMaxStepTokens) return error("ERR_BAD_OPTION", "A step takes 1 to 256 tokens.");
    for (int i = 0; i < n; ++i) {
        const TokenInput& input = inputs[i];
        if (&input.session->model() != &model) return error("ERR_BAD_OPTION", "A session belongs to another model.");
        const bool continues = i > 0 && inputs[i - 1].session == input.session;
        positions[i] = continues ? positions[i - 1] + 1 : input.session->length();
        if (!continues) {
            for (int j = 0; j < i; ++j) {
                if (inputs[j].session == input.session) {
                    return error("ERR_BAD_OPTION", "The tokens of one session must be consecutive in a step.");
                }
            }
        }
        if (positions[i] >= input.session->capacity()) {
            return error("ERR_CONTEXT_FULL", "The context of " + std::to_string(input.session->capacity()) +
                                                 " positions is full; rewind the session or make one with a larger context.");
        }
        if (input.token < 0 || input.token >= model.config.vocab_size) {
            return error("ERR_TOKEN_RANGE", "Token id " + std::to_string(input.token) + " is not within 0 to " +
                                                std::to_string(model.config.vocab_size - 1) + ".");
        }
    }
    return {};
}

}  // namespace

Scratch::~Scratch() { free_pages(base, bytes); }

bool Scratch::ensure(size_t wanted) {
    if (wanted <= bytes) return true;
    free_pages(base, bytes);
    base = static_cast<unsigned char*>(allocate_pages(wanted, true));
    bytes = base ? wanted : 0;
    return base != nullptr;
}

Status forward(const Model& model, Pool& pool, Scratch& scratch, const TokenInput* inputs, int n,
               const LogitsSink& sink, const GiveUp& give_up) {
    int positions[kMaxStepTokens];
    if (Status status = place_tokens(model, inputs, n, positions); !status.ok()) return status;
    Step step(model, pool, inputs, positions, n);
    const size_t needed = step.lay_out(nullptr);
    if (!scratch.ensure(needed)) {
        return error("ERR_OUT_OF_MEMORY", "The system has no " + std::to_string(needed >> 20) + " MiB for a step's buffers.");
    }
    step.lay_out(scratch.base);
    step.embed();
    for (int layer = 0; layer < model.config.n_layers; ++layer) {
        if (give_up && give_up()) return error(kGivenUp, "The step was given up.");
        step.layer(layer);
    }
    if (Status status = step.logits(sink); !status.ok()) return status;
    for (int i = 0; i < n; ++i) inputs[i].session->advance(1);
    return {};
}

}  // namespace onebit
