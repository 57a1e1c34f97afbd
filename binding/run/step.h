// One request for computing: tokens of one or several sessions, run through the model in chunks of bounded time, and
// what the caller wants to know about the logits.
#pragma once

#include <atomic>
#include <vector>

#include "run/forward.h"
#include "run/sampler.h"

namespace onebit {

enum class WantedLogits : uint8_t { none, last, all };
enum class WantedHidden : uint8_t { none, last, sum };  // sum: over all tokens

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
    WantedHidden hidden = WantedHidden::none;
    bool wants_scores = false;
    bool ends = false;                        // a text ends with the last token; so it does where a sampler begins to choose
    bool answers = false;                     // the tokens go on with an answer: see Session::begin_step
    ScoreRequest score;
    Sampler* sampler = nullptr;  // may be null; chooses what follows the last token
    // So many of the last tokens are guesses of what the sampler chooses: it chooses from where they begin, and goes on behind each
    // that was right. All of them are in the cache afterwards.
    int guesses = 0;

    // ---- results
    int processed = 0;  // tokens now in the cache
    std::vector<float> rows;  // (rows, vocab_size) logits
    std::vector<double> hidden_state;  // (dim) when all tokens were processed; added up in the tokens' order
    Scores scores;
    Status sampled;  // when all tokens were processed; of the last thing that was to be chosen
    std::vector<Choice> choices;  // one, and one more for each guess that was right; one fewer when sampled is an error

    bool all_processed() const { return static_cast<size_t>(processed) == tokens.size(); }
    bool is_last(int token) const { return static_cast<size_t>(token) + 1 == tokens.size(); }
    bool wants_row(int token) const;  // whether somebody looks at the logits after this token
    bool chooses_after(int token) const { return sampler && token >= static_cast<int>(tokens.size()) - 1 - guesses; }
    bool wants_hidden(int token) const { return hidden == WantedHidden::sum || (hidden == WantedHidden::last && is_last(token)); }
};

// What steps need of a model beside it. One job at a time uses it.
struct Engine {
    std::shared_ptr<Model> model;
    int threads = 1;
    Workspace workspace;
    CandidateScratch candidates;
    double pace = 64;  // tokens of a prefill chunk that takes about kChunkMs, as far as is known
};

struct StepRequest {
    std::vector<StepItem*> items;
    int chunk = 0;                              // tokens; 0: by the engine's pace
    const std::atomic<bool>* cancel = nullptr;  // looked at between layers
};

// So many tokens of a request with one item are computed in one go, so that a session with states can go back to before them.
int computed_at_once(const StepRequest& request, const Pool& pool);

// Runs until every item is done or stopped. On error the items' `processed` and the sessions' lengths tell how far
// it came. Errors as of forward().
Status run_step(Engine& engine, Pool& pool, StepRequest& request);

}  // namespace onebit
