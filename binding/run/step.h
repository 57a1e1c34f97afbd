// One request for computing: tokens of one or several sessions, run through the model in chunks of bounded time, and
// what the caller wants to know about the logits.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "run/forward.h"
#include "run/sampler.h"

namespace onebit {

// (rows, vocab_size) floats, allocated without exceptions.
class LogitsRows {
public:
    LogitsRows() = default;
    ~LogitsRows();
    LogitsRows(const LogitsRows&) = delete;
    LogitsRows& operator=(const LogitsRows&) = delete;

    bool reserve(size_t rows, size_t columns);  // false when there is no memory
    void append(const float* row);
    const float* data() const { return data_; }
    size_t size() const { return size_; }  // floats

private:
    float* data_ = nullptr;
    size_t size_ = 0, columns_ = 0;
};

enum class WantedLogits : uint8_t { none, last, all };

struct ScoreRequest {
    int from = 0;       // first token about whose successor something is wanted
    int top = 0;        // how many of the most likely successors
    int32_t next = -1;  // what follows the last token; -1: unknown
};

struct Scores {
    std::vector<float> logprobs;      // (rows) NaN where the successor is unknown
    std::vector<int32_t> top_ids;     // (rows, top)
    std::vector<float> top_logprobs;  // (rows, top)
};

struct StepItem {
    Session* session = nullptr;
    const std::atomic<bool>* stop = nullptr;  // may be null; stops this item only
    std::vector<int32_t> tokens;              // at least one
    WantedLogits logits = WantedLogits::none;
    bool wants_scores = false;
    ScoreRequest score;
    Sampler* sampler = nullptr;  // may be null; chooses what follows the last token

    // ---- results
    int processed = 0;  // tokens now in the cache
    LogitsRows rows;
    Scores scores;
    Status sampled;  // when all tokens were processed
    Choice choice;   // when sampled.ok()

    bool all_processed() const { return static_cast<size_t>(processed) == tokens.size(); }
    bool wants_row(int token) const;  // whether somebody looks at the logits after this token
};

// What a model learns about its own speed, so that prefill chunks take about kChunkMs.
struct Pace {
    double tokens = 64;
};

struct StepRequest {
    std::vector<StepItem*> items;
    int chunk = 0;                              // tokens; 0: by Pace
    const std::atomic<bool>* cancel = nullptr;  // looked at between layers
};

// Runs until every item is done or stopped. On error the items' `processed` and the sessions' lengths tell how far
// it came.
Status run_step(const Model& model, Pool& pool, Scratch& scratch, CandidateScratch& candidate_scratch, Pace& pace,
                StepRequest& request);

}  // namespace onebit
