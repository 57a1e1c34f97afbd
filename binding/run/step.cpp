#include "run/step.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <limits>
#include <thread>

namespace onebit {

namespace {

// How long other sessions wait for their turn. An abort waits for a layer only.
constexpr double kChunkMs = 100;

// How long a sampler may keep the engine from everybody else, and how long that is waited for without sleep.
constexpr auto kHeldTime = std::chrono::milliseconds(20);
constexpr auto kSpinTime = std::chrono::microseconds(100);

// Fewer tokens than this for each thread take hardly less time: all weights are read for every chunk, and the threads
// would have to share them (7B shape, 2 threads: 75 tokens/s in chunks of 16, 92 in chunks of 32).
constexpr int kLeastForThread = 16;

int least_chunk(const Pool& pool) { return std::clamp(kLeastForThread * pool.threads(), 2 * kLeastForThread, kMaxStepTokens); }

// The tokens of one call of forward(), and where each came from.
struct Chunk {
    std::vector<TokenInput> inputs;
    std::vector<std::pair<StepItem*, int>> origin;  // item, index of its token
};

bool stopped(const StepItem& item) { return item.stop && item.stop->load(std::memory_order_relaxed); }

bool cancelled(const StepRequest& request) { return request.cancel && request.cancel->load(std::memory_order_relaxed); }

bool all_stopped(const Chunk& chunk) {
    return std::all_of(chunk.origin.begin(), chunk.origin.end(), [](const auto& from) { return stopped(*from.first); });
}

void fill(const StepRequest& request, size_t budget, Chunk& chunk) {
    chunk.inputs.clear();
    chunk.origin.clear();
    for (StepItem* item : request.items) {
        if (stopped(*item)) continue;
        const int n = static_cast<int>(item->tokens.size());
        for (int i = item->processed; i < n && chunk.inputs.size() < budget; ++i) {
            const bool ends = item->is_last(i) && !item->answers && (item->ends || item->sampler);
            chunk.inputs.push_back(
                {item->session, item->tokens[static_cast<size_t>(i)], item->wants_row(i), item->wants_hidden(i), ends, item->answers});
            chunk.origin.emplace_back(item, i);
        }
    }
}

void score_row(const KernelSet& kernels, const float* logits, int n, const StepItem& item, int token,
               CandidateScratch& scratch, Scores& scores) {
    const auto next_index = static_cast<size_t>(token) + 1;
    const int32_t next = next_index < item.tokens.size() ? item.tokens[next_index] : item.score.next;
    const double total = log_sum_exp(kernels, logits, n);
    scores.logprobs.push_back(next < 0 ? std::numeric_limits<float>::quiet_NaN() : log_probability(logits[next], total));
    if (item.score.top == 0) return;
    top_k(logits, n, item.score.top, scratch);
    for (size_t i = 0; i < static_cast<size_t>(item.score.top); ++i) {
        const int32_t id = key_id(scratch.keys[i]);
        scores.top_ids.push_back(id);
        scores.top_logprobs.push_back(log_probability(logits[id], total));
    }
}

// Waits until the sampler may choose, but not for ever: others want the engine. False when it may not.
bool wait_for(const Sampler& sampler, const std::function<bool()>& nobody_waits) {
    const auto start = std::chrono::steady_clock::now();
    while (sampler.held()) {
        const auto waited = std::chrono::steady_clock::now() - start;
        if (nobody_waits() || waited > kHeldTime) return false;
        if (waited > kSpinTime) std::this_thread::sleep_for(kSpinTime);
        else std::this_thread::yield();
    }
    return true;
}

// Whether everything up to this token, from which the sampler is to go on, is what it chose.
bool guessed_right(const StepItem& item, int token) {
    const auto guess = static_cast<size_t>(token + 1 + item.guesses) - item.tokens.size();  // 0: the last that was known
    if (guess == 0) return true;
    return item.sampled.ok() && item.choices.size() == guess && item.choices.back().id == item.tokens[static_cast<size_t>(token)];
}

void take_row(Engine& engine, const float* logits, StepItem& item, int token, const std::function<bool()>& nobody_waits) {
    const KernelSet& kernels = *engine.model->kernels;
    const int n = engine.model->config.vocab_size;
    const bool last = item.is_last(token);
    if (item.logits == WantedLogits::all || (item.logits == WantedLogits::last && last)) {
        item.rows.insert(item.rows.end(), logits, logits + n);
    }
    if (item.wants_scores && token >= item.score.from) score_row(kernels, logits, n, item, token, engine.candidates, item.scores);
    if (!item.chooses_after(token) || !guessed_right(item, token)) return;
    Choice choice;
    item.sampled = wait_for(*item.sampler, nobody_waits)
                       ? item.sampler->choose(kernels, logits, n, engine.candidates, &choice)
                       : error("ERR_HELD", "Which tokens may be chosen was not known in time.");
    if (item.sampled.ok()) item.choices.push_back(choice);
}

// All at once and before anything is computed, so that what does not fit is known then.
Status reserve_results(StepItem& item, const Config& config) {
    const size_t tokens = item.tokens.size(), rows = item.logits == WantedLogits::all ? tokens : item.logits == WantedLogits::last;
    const size_t scored = item.wants_scores ? tokens - static_cast<size_t>(item.score.from) : 0;
    const auto top = static_cast<size_t>(item.score.top);
    const Status status = caught([&] {
        item.rows.reserve(rows * static_cast<size_t>(config.vocab_size));
        if (item.hidden != WantedHidden::none) item.hidden_state.assign(static_cast<size_t>(config.dim), 0.0);
        item.choices.clear();
        if (item.sampler) item.choices.reserve(static_cast<size_t>(item.guesses) + 1);
        item.scores.logprobs.reserve(scored);
        item.scores.top_ids.reserve(scored * top);
        item.scores.top_logprobs.reserve(scored * top);
        return Status{};
    });
    if (status.ok()) return status;
    return error("ERR_OUT_OF_MEMORY", "There is no memory for the logits or scores of " + std::to_string(tokens) +
                                          " tokens; ask for them in smaller pieces.");
}

// At most twice as many tokens as the last chunk had: one quick chunk proves little.
void learn(double& pace, int n, double ms) {
    const double fitting = n * kChunkMs / std::max(ms, 0.01);
    pace = std::min({fitting, 2.0 * n, static_cast<double>(kMaxStepTokens)});
}

size_t next_budget(const StepRequest& request, const Pool& pool, double pace) {
    if (request.chunk > 0) return static_cast<size_t>(std::min(request.chunk, kMaxStepTokens));
    const int tokens = std::max(static_cast<int>(pace), least_chunk(pool));
    return static_cast<size_t>(tokens / 8 * 8);  // kernels work on several tokens at a time
}

}  // namespace

int computed_at_once(const StepRequest& request, const Pool& pool) { return static_cast<int>(next_budget(request, pool, 0)); }

bool StepItem::wants_row(int token) const {
    const bool last = is_last(token);
    if (logits == WantedLogits::all || (last && logits == WantedLogits::last) || chooses_after(token)) return true;
    return wants_scores && token >= score.from;
}

Status run_step(Engine& engine, Pool& pool, StepRequest& request) {
    for (StepItem* item : request.items) {
        if (Status status = reserve_results(*item, engine.model->config); !status.ok()) return status;
    }
    using Clock = std::chrono::steady_clock;
    Chunk chunk;
    for (;;) {
        if (cancelled(request)) return {};
        const size_t budget = next_budget(request, pool, engine.pace);
        fill(request, budget, chunk);
        if (chunk.inputs.empty()) return {};
        const int n = static_cast<int>(chunk.inputs.size());
        const auto start = Clock::now();
        const auto hidden_sink = [&](int index, const float* hidden) {
            std::vector<double>& sum = chunk.origin[static_cast<size_t>(index)].first->hidden_state;
            for (size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<double>(hidden[i]);
        };
        const auto nobody_waits = [&] { return cancelled(request) || all_stopped(chunk); };
        const auto sink = [&](int index, const float* logits) {
            const auto [item, token] = chunk.origin[static_cast<size_t>(index)];
            take_row(engine, logits, *item, token, nobody_waits);
        };
        const Status status = forward(*engine.model, pool, engine.workspace, chunk.inputs.data(), n, sink, nobody_waits, hidden_sink);
        if (!status.ok()) {
            if (std::strcmp(status.code, kGivenUp) == 0) continue;  // the next chunk is of whoever is left
            return status;
        }
        for (const auto& [item, token] : chunk.origin) item->processed = token + 1;
        const std::chrono::duration<double, std::milli> took = Clock::now() - start;
        if (request.chunk == 0 && chunk.inputs.size() == budget) learn(engine.pace, n, took.count());
    }
}

}  // namespace onebit
