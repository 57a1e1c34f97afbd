// A generation: token after token without a way through JavaScript in between. What was chosen is told while more is
// computed. Knows nothing of Node: napi/generate.cpp adds who is told.
#pragma once

#include <chrono>

#include "run/drafter.h"
#include "run/guesser.h"
#include "run/step.h"
#include "system/worker.h"

namespace onebit {

// How far the tokens of a sampler have come: chosen by generations, and taken by whoever they are for.
struct Progress {
    int64_t made = 0;  // the generation's
    std::atomic<int64_t> taken{0};
};

class Generation : public Job {
public:
    struct Made {
        Choice choice;
        Scores scores;
        double ms;  // what the worker took for it
    };

    std::shared_ptr<Engine> engine;
    StepItem item;        // session, first tokens, and the sampler: without one the tokens are computed and nothing else
    StepRequest request;  // its chunk
    Progress* progress = nullptr;  // of the sampler
    Guesser* guesser = nullptr;    // of the sampler too; null: nothing is guessed
    // A small model's guesses, where what was said gives none; null: none. With a guesser only.
    std::unique_ptr<Drafter> drafter;
    Ledger* draft_ledger = nullptr;  // of the sampler, with a drafter
    int64_t most = 0;                // tokens to choose
    std::vector<int32_t> stop_tokens;

    // One token, and those behind it that were guessed, so that jobs of other sessions come in between. The first time: the
    // prompt, and one token.
    void run(Pool& pool) final;
    bool again(bool others) final;
    // Whether it ended because the consumer was behind.
    bool behind() const { return behind_; }
    int64_t steps() const { return steps_; }  // that were computed

protected:
    // On the worker thread, in order. May throw where there is no memory.
    virtual void tell(std::vector<Made> made) = 0;

private:
    using Clock = std::chrono::steady_clock;

    void take_choices(double ms);
    bool go_on_from(int before);
    void decide(double ms);
    void add_guesses(Pool& pool);
    Ledger* asked();
    void learn(int right, double ms);
    void tell_all();

    bool going_on_ = false, behind_ = false;
    int64_t steps_ = 0;
    bool catching_up_ = false;  // behind as soon as nothing is computed once more
    bool drafted_ = false;  // the guesses of this step are the drafter's
    // Whose guess was wrong in a session with states, which goes back to before all that was computed with it: so that some is
    // computed once more. Null: nobody's.
    Ledger* owing_ = nullptr;
    std::vector<Made> untold_;
    Clock::time_point told_{};  // when something was last told
};

}  // namespace onebit
