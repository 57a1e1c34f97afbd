// Guesses of the tokens that follow, by a smaller model of the same vocabulary ("speculative decoding": Leviathan et al.,
// 2023, arXiv 2211.17192). It says what it holds for likeliest; the sampler of the large model says which of that is right.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "run/step.h"

namespace onebit {

class Drafter {
public:
    // The session, of the engine's model, holds a beginning of what was said, and may be empty. It outlives this. always: guesses
    // that the small model is not sure of are made too.
    Drafter(std::shared_ptr<Engine> engine, Session* session, const std::atomic<bool>* stop, bool always);

    // At most `limit` tokens that may follow the last of `said`, fewer where the small model is not sure: computed on the
    // threads that `pool` has now. None when it was cancelled or failed: guesses are nothing that has to be there.
    std::vector<int32_t> guess(Pool& pool, const std::vector<int32_t>& said, int limit, const std::atomic<bool>* cancel);

    // Computes all of `said` but the last token, which guess() wants again: so that a prompt counts as one.
    void read(Pool& pool, const std::vector<int32_t>& said, const std::atomic<bool>* cancel);

    // The session holds nothing any more that was not said.
    void settle(const std::vector<int32_t>& said);

private:
    bool compute(Pool& pool, std::vector<int32_t> tokens, Sampler* sampler, const std::atomic<bool>* cancel);

    std::shared_ptr<Engine> engine_;
    const bool always_;
    StepItem item_;
    std::vector<int32_t> guessed_;  // by guess(), behind the said_ tokens that there were
    size_t said_ = 0;
};

}  // namespace onebit
