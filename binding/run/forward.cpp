#include "run/forward.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "kernels/math.h"
#include "run/layer.h"

namespace onebit {

namespace {

// Fills positions and checks that every token has a place and a meaning.
Status place_tokens(const Model& model, const TokenInput* inputs, int n, int* positions) {
    if (n < 1 || n > kMaxStepTokens) return error("ERR_BAD_OPTION", "A step takes 1 to 256 tokens.");
    for (int i = 0; i < n; ++i) {
        const TokenInput& input = inputs[i];
        if (&input.session->model() != &model) return error("ERR_BAD_OPTION", "A session belongs to another model.");
        const bool continues = i > 0 && inputs[i - 1].session == input.session;
        positions[i] = continues ? positions[i - 1] + 1 : input.session->length();
        for (int j = 0; j < i && !continues; ++j) {
            if (inputs[j].session != input.session) continue;
            return error("ERR_BAD_OPTION", "The tokens of one session must be consecutive in a step.");
        }
        if (positions[i] >= input.session->capacity()) {
            return error("ERR_CONTEXT_FULL", "The context of " + std::to_string(input.session->capacity()) +
                                                 " positions is full; rewind the session or make one with a larger context.");
        }
        if (input.token < 0 || input.token >= model.config.vocab_size) {
            return error("ERR_TOKEN_RANGE", "Token id " + std::to_string(input.token) + " is not within 0 to " +
                                                std::to_string(model.config.vocab_size - 1) + ".");
        }
        const bool last = i + 1 == n || inputs[i + 1].session != input.session;
        if (!last) continue;
        if (Status status = input.session->grow(positions[i] + 1); !status.ok()) return status;
        input.session->begin_step(positions[i] + 1 - input.session->length(), input.ends, input.answers);
    }
    return {};
}

// x (dim) = the token's row, and its position's where those are learned; cos, sin of its position otherwise
void embed(const Frame& f, Pool& pool) {
    const Config& c = f.config;
    pool.run(f.plan.tokens, [&](int t) {
        float* x = f.row(f.x, f.plan.dim, t);
        read_embedding(f.kernels, f.model.embedding, f.inputs[t].token, x);
        if (c.learned_positions) {
            const auto place = static_cast<size_t>(f.positions[t] + c.position_offset);
            f.kernels.add(x, f.model.positions + place * static_cast<size_t>(padded(c.dim, 64)), c.dim);
        } else {
            f.model.rope.angles(f.positions[t], f.row(f.cos, f.plan.angles, t), f.row(f.sin, f.plan.angles, t));
        }
    });
}

// All that lies between the attention, or the delta rule, of a layer and that of the next, for one span of the tokens.
class Stretch final : public Task {
public:
    Stretch(const Frame& f, Pool& pool) : f_(f), pool_(pool) {}

    void run(int span, int thread) override {
        const int first = span * f_.plan.span_tokens, count = std::min(f_.plan.span_tokens, f_.plan.tokens - first);
        auto* scratch = f_.memory.at<unsigned char>(f_.plan.scratch[f_.plan.alone ? thread : 0]);
        const Crew crew{f_.plan.alone ? nullptr : &pool_, {first, count}, scratch};
        if (next_layer > 0) {
            (is_delta(next_layer - 1) ? mix_delta : mix)(f_, next_layer - 1, crew);
            feed_forward(f_, next_layer - 1, crew);
        }
        if (next_layer < f_.config.n_layers) (is_delta(next_layer) ? project_delta : project)(f_, next_layer, crew);
    }

    int next_layer = 0;

private:
    bool is_delta(int layer) const { return f_.model.layers[static_cast<size_t>(layer)].is_delta; }

    const Frame& f_;
    Pool& pool_;
};

Status check_finite(const Frame& f, const float* row, size_t n, int token, const char* what) {
    if (first_not_finite(row, n) == n) return {};
    return error("ERR_NOT_FINITE", std::string("The model gave a ") + what + " that is not a number at position " +
                                       std::to_string(f.positions[token]) + "; its weights are damaged or were not made right.");
}

// normed (dim) = norm(x), of the tokens for which somebody wants it
Status hidden_states(const Frame& f, Pool& pool, const RowSink& sink) {
    const auto wanted = [&](int t) { return f.inputs[t].want_hidden; };
    const Normalize normalize{f, f.normed, f.x, f.plan.dim, f.model.norm, f.config.dim};
    pool.run(f.plan.tokens, [&](int t) {
        if (wanted(t)) normalize(t);
    });
    for (int t = 0; t < f.plan.tokens; ++t) {
        if (!wanted(t)) continue;
        const float* row = f.row(f.normed, f.plan.dim, t);
        if (Status status = check_finite(f, row, static_cast<size_t>(f.config.dim), t, "hidden state"); !status.ok()) return status;
        sink(t, row);
    }
    return {};
}

// logits (vocab_size) of the tokens for which somebody wants them, some tokens at a time
Status logits(const Frame& f, Pool& pool, const RowSink& sink) {
    const auto n = static_cast<size_t>(f.config.vocab_size);
    const Target head[] = {{&f.model.head, f.logits, f.plan.vocab}};
    for (int t = 0; t < f.plan.tokens;) {
        int tokens[kMaxStepTokens], count = 0;
        for (; t < f.plan.tokens && count < f.plan.logit_rows; ++t) {
            if (!f.inputs[t].want_logits) continue;
            std::memcpy(f.row(f.normed, f.plan.dim, count), f.row(f.x, f.plan.dim, t), f.plan.dim * sizeof(float));
            tokens[count++] = t;
        }
        if (count == 0) break;
        const Crew crew{&pool, {0, count}, f.memory.at<unsigned char>(f.plan.head_scratch)};
        crew.each(crew.span, Normalize{f, f.normed, f.normed, f.plan.dim, f.model.norm, f.config.dim});
        multiply_group(f.model, f.plan.head, crew, head, f.normed, f.plan.dim);
        for (int i = 0; i < count; ++i) {
            const float* row = f.row(f.logits, f.plan.vocab, i);
            if (Status status = check_finite(f, row, n, tokens[i], "logit"); !status.ok()) return status;
            sink(tokens[i], row);
        }
    }
    return {};
}

}  // namespace

Status forward(const Model& model, Pool& pool, Workspace& workspace, const TokenInput* inputs, int n,
               const RowSink& logits_sink, const GiveUp& give_up, const RowSink& hidden_sink) {
    int positions[kMaxStepTokens];
    if (Status status = place_tokens(model, inputs, n, positions); !status.ok()) return status;
    const Plan plan(model, pool.threads(), inputs, positions, n, workspace.gap());
    if (const size_t bytes = plan.layout.bytes(); !workspace.fit(bytes)) {
        return error("ERR_OUT_OF_MEMORY", "The system has no " + std::to_string(bytes >> 20) + " MiB for a step's buffers.");
    }
    const Frame frame{model, plan, workspace, inputs, positions};
    const Layout::Guard guard(plan.layout, workspace.at<unsigned char>({0, plan.layout.bytes()}));
    embed(frame, pool);
    Stretch stretch(frame, pool);
    for (int layer = 0; layer <= model.config.n_layers; ++layer) {
        if (give_up && give_up()) return error(kGivenUp, "The step was given up.");
        stretch.next_layer = layer;
        if (plan.alone) {
            pool.run(plan.spans, stretch);
        } else {
            stretch.run(0, 0);
        }
        if (layer < model.config.n_layers) (model.layers[static_cast<size_t>(layer)].is_delta ? recall : attend)(frame, layer, pool);
    }
    if (hidden_sink) {
        if (Status status = hidden_states(frame, pool, hidden_sink); !status.ok()) return status;
    }
    if (Status status = logits(frame, pool, logits_sink); !status.ok()) return status;
    for (int first = 0, i = 1; i <= n; ++i) {
        if (i < n && inputs[i].session == inputs[first].session) continue;
        inputs[first].session->advance(i - first);
        first = i;
    }
    return {};
}

}  // namespace onebit
