// Chooses the next token from logits. Integer and IEEE double arithmetic in a fixed order, with the exponential of
// kernels/math.h, so a seed means the same tokens on every machine.
#pragma once

#include <atomic>
#include <utility>
#include <vector>

#include "run/candidates.h"
#include "system/status.h"

namespace onebit {

struct SamplingOptions {
    double temperature = 1;  // 0: the likeliest always
    int top_k = 0;           // 0: all
    double top_p = 1;
    double min_p = 0;
    int first = 1;            // candidates that are looked at first; all of them only where those cannot tell
    int repeat_last_n = 0;    // how many recent tokens the penalties look at; 0: there are no penalties
    uint64_t seed = 0;
    Shortlist changes;  // penalties without their ids, and the bias
};

struct Choice {
    int32_t id = 0;
    float logprob = 0;       // the model's own, before penalties, bias and temperature
    int32_t candidates = 0;  // how many had to be looked at
};

// xoshiro128** (Blackman and Vigna, prng.di.unimi.it): four 32-bit integers of state.
class Random {
public:
    explicit Random(uint64_t seed);
    double fraction();  // a multiple of 2^-53 in [0, 1)

private:
    uint32_t next();
    uint32_t state_[4];
};

class Sampler {
public:
    // recent: the tokens before the first choice; only the last repeat_last_n matter.
    Sampler(SamplingOptions options, std::vector<int32_t> recent);

    // Which tokens may be chosen from now on: see Shortlist::allowed.
    void allow(std::vector<int32_t> mask) {
        options_.changes.allowed = std::move(mask);
        held_.store(false, std::memory_order_release);
    }
    // Which those are is still being found out elsewhere: choices wait for allow(), which may come from another thread then.
    void hold() { held_.store(true, std::memory_order_relaxed); }
    bool held() const { return held_.load(std::memory_order_acquire); }

    // The token after these n logits, which is one of the recent ones from then on. ERR_BAD_LOGITS when the best logit
    // that may be chosen is no finite number.
    Status choose(const KernelSet& kernels, const float* logits, int n, CandidateScratch& scratch, Choice* out);

private:
    void count_recent();
    int pick(double draw);
    int pick_with(double beyond, double draw) const;
    double bound_beyond(double* low);
    void fill_weights(std::vector<double>& weights, size_t count, double temperature) const;

    SamplingOptions options_;
    std::atomic<bool> held_{false};
    Random random_;
    std::vector<int32_t> recent_;
    Candidates candidates_;
    std::vector<double> weights_, plain_;  // of the candidates, the first being 1; see pick()
};

}  // namespace onebit
