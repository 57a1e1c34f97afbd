#include "run/step.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>

namespace onebit {

namespace {

// How long other sessions wait for their turn. An abort waits for a layer only.
constexpr double kChunkMs = 100;

// Fewer tokens than this for each thread take hardly less time: all weights are read for every chunk, and the threads
// would have to share them (7B shape, 2 threads: 75 tokens/s in chunks of 16, 92 in chunks of 32).
constexpr int kLeastForThread = 16;

int least_chunk(const Pool& pool) { return std::clamp(kLeastForThread * pool.threads(), 2 * kLeastForThread, kMaxStepTokens); }

// The tokens of one call of forward(), and where each came from.
struct Chunk {
    std::vector<TokenInput> inputs;
    std::vector<std::pair<StepItem*, int>> origin;  // item, index of its token

    void clear() {
        inputs.clear();
        origin.clear();
    }
};

bool stopped(const StepItem& item) { return item.stop && item.stop->load(std::memory_order_relaxed); }

bool cancelled(const StepRequest& request) { return request.cancel && request.cancel->load(std::memory_order_relaxed); }

bool all_stopped(const Chunk& chunk) {
    return std::all_of(chunk.origin.begin(), chunk.origin.end(), [](const auto& from) { return stopped(*from.first); });
}

void fill(const StepRequest& request, size_t budget, Chunk& chunk) {
    chunk.clear();
    for (StepItem* item : request.items) {
        if (stopped(*item)) continue;
        const int n = static_cast<int>(item->tokens.size());
        for (int i = item->processed; i < n && chunk.inputs.size() < budget; ++i) {
            chunk.inputs.push_back({item->session, item->tokens[static_cast<size_t>(i)], item->wants_row(i)});
            chunk.origin.emplace_back(item, i);
        }
    }
}

void score_row(const KernelSet& kernels, const float* logits, int n, const StepItem& item, int token,
               CandidateScratch& scratch, Scores& scores) {
    const auto next_index = static_cast<size_t>(token) + 1;
    const int32_t next = next_index < item.tokens.size() ? item.tokens[next_index] : item.score.next;
    const double total = log_sum_exp(kernels, logits, n);
    scores.logprobs.push_back(next < 0 ? std::numeric_limits<float>::quiet_NaN()
                                       : log_probability(logits[next], total));
    if (item.score.top == 0) return;
    top_k(logits, n, item.score.top, scratch);
    for (size_t i = 0; i < static_cast<size_t>(item.score.top); ++i) {
        const int32_t id = key_id(scratch.keys[i]);
        scores.top_ids.push_back(id);
        scores.top_logprobs.push_back(log_probability(logits[id], total));
    }
}

void take_row(const Model& model, const float* logits, StepItem& item, int token, CandidateScratch& scratch) {
    const KernelSet& kernels = *model.kernels;
    const int n = model.config.vocab_size;
    const bool last = static_cast<size_t>(token) + 1 == item.tokens.size();
    if (item.logits == WantedLogits::all || (item.logits == WantedLogits::last && last)) item.rows.append(logits);
    if (item.wants_scores && token >= item.score.from) {
        score_row(kernels, logits, n, item, token, scratch, item.scores);
    }
    if (item.sampler && last) item.sampled = item.sampler->choose(kernels, logits, n, scratch, &item.choice);
}

Status reserve_results(const StepRequest& request, const Model& model) {
    for (StepItem* item : request.items) {
        if (item->logits == WantedLogits::none) continue;
        const size_t rows = item->logits == WantedLogits::all ? item->tokens.size() : 1;
        if (!item->rows.reserve(rows, static_cast<size_t>(model.config.vocab_size))) {
            return error("ERR_OUT_OF_MEMORY", "There is no memory for the logits of " + std::to_string(rows) +
                                                  " tokens; ask for them in smaller pieces.");
        }
    }
    return {};
}

// At most twice as many tokens as the last chunk had: one quick chunk proves little.
void learn(Pace& pace, int n, double ms) {
    const double fitting = n * kChunkMs / std::max(ms, 0.01);
    pace.tokens = std::min({fitting, 2.0 * n, static_cast<double>(kMaxStepTokens)});
}

size_t next_budget(const StepRequest& request, const Pool& pool, const Pace& pace) {
    if (request.chunk > 0) return static_cast<size_t>(std::min(request.chunk, kMaxStepTokens));
    const int tokens = std::max(static_cast<int>(pace.tokens), least_chunk(pool));
    return static_cast<size_t>(tokens / 8 * 8);  // kernels work on several tokens at a time
}

}  // namespace

LogitsRows::~LogitsRows() { std::free(data_); }

bool LogitsRows::reserve(size_t rows, size_t columns) {
    columns_ = columns;
    data_ = static_cast<float*>(std::malloc(rows * columns * sizeof(float)));
    return data_ != nullptr;
}

void LogitsRows::append(const float* row) {
    std::memcpy(data_ + size_, row, columns_ * sizeof(float));
    size_ += columns_;
}

bool StepItem::wants_row(int token) const {
    const bool last = static_cast<size_t>(token) + 1 == tokens.size();
    if (logits == WantedLogits::all || (last && (logits == WantedLogits::last || sampler))) {
        return true;
    }
    return wants_scores && token >= score.from;
}

Status run_step(const Model& model, Pool& pool, Scratch& scratch, CandidateScratch& candidate_scratch, Pace& pace,
                StepRequest& request) {
    if (Status status = reserve_results(request, model); !status.ok()) return status;
    using Clock = std::chrono::steady_clock;
    Chunk chunk;
    for (;;) {
        if (cancelled(request)) return {};
        const size_t budget = next_budget(request, pool, pace);
        fill(request, budget, chunk);
        if (chunk.inputs.empty()) return {};
        const int n = static_cast<int>(chunk.inputs.size());
        const auto start = Clock::now();
        const auto sink = [&](int index, const float* logits) {
            const auto [item, token] = chunk.origin[static_cast<size_t>(index)];
            take_row(model, logits, *item, token, candidate_scratch);
        };
        const auto nobody_waits = [&] { return cancelled(request) || all_stopped(chunk); };
        const Status status = forward(model, pool, scratch, chunk.inputs.data(), n, sink, nobody_waits);
        if (!status.ok()) {
            if (std::strcmp(status.code, kGivenUp) == 0) continue;  // the next chunk is of whoever is left
            return status;
        }
        for (const auto& [item, token] : chunk.origin) item->processed = token + 1;
        const std::chrono::duration<double, std::milli> took = Clock::now() - start;
        if (request.chunk == 0 && chunk.inputs.size() == budget) learn(pace, n, took.count());
    }
}

}  // namespace onebit
