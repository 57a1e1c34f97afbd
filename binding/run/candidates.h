// From (vocab_size) logits to what a sampler needs: the most likely few, and the logarithm of the sum of all
// exponentials. JavaScript never sees the rest.
#pragma once

#include <limits>
#include <vector>

#include "kernels/kernels.h"

namespace onebit {

// What changes logits before the shortlist is taken, and how long the list is.
struct Shortlist {
    int k = 1;  // 1..vocab_size
    // As in llama.cpp and Hugging Face: for every id here logit > 0 ? logit / repeat : logit * repeat, then
    // - (presence + count * frequency).
    std::vector<int32_t> penalty_ids;
    std::vector<int32_t> penalty_counts;  // of the same length, each at least 1
    float repeat_penalty = 1;
    float presence_penalty = 0;
    float frequency_penalty = 0;
    std::vector<int32_t> bias_ids;
    std::vector<float> bias_values;  // of the same length, added last; -infinity forbids a token
    // Whatever the others do, a token whose bit is 0 is forbidden. A bit a token, 32 to a word; empty: all are allowed.
    std::vector<int32_t> allowed;
    bool wants_sum = true;  // log_sum_exp after all changes, which takes time

    bool changes_logits() const { return !penalty_ids.empty() || !bias_ids.empty() || !allowed.empty(); }
    bool allows(int32_t id) const {
        return allowed.empty() || (static_cast<uint32_t>(allowed[static_cast<size_t>(id / 32)]) >> id % 32 & 1) != 0;
    }
};

struct Candidates {
    std::vector<int32_t> ids;       // (k, fewer where `allowed` leaves fewer) descending by logit, ties by the lower id
    std::vector<float> logits;      // of these, after penalties and bias
    int tokens = 0;                 // that can be chosen, these among them: all, or those that `allowed` leaves
    double log_sum_exp = 0;         // of all logits after penalties and bias, where wanted
    double raw_log_sum_exp = 0;     // of all logits as the model gave them
};

// Memory that is kept from token to token.
class CandidateScratch {
public:
    std::vector<float> changed;       // (vocab_size) logits after penalties, bias and `allowed`
    std::vector<float> column_max;    // see top_k
    std::vector<uint64_t> keys;
};

double log_sum_exp(const KernelSet& kernels, const float* logits, int n);

// The k largest of n logits (none NaN), descending, ties by the lower id. 1 <= k <= n. Result: scratch.keys[0..count), count
// being k, or fewer where fewer reach `least`.
size_t top_k(const float* logits, int n, int k, CandidateScratch& scratch,
             float least = -std::numeric_limits<float>::infinity());
int32_t key_id(uint64_t key);

// ids in `shortlist` must be below n, and `allowed` must have a bit for each.
void choose_candidates(const KernelSet& kernels, const float* logits, int n, const Shortlist& shortlist,
                       CandidateScratch& scratch, Candidates* out);

// The f32 nearest to logit - log_sum_exp: the one formula for every log-probability we report.
inline float log_probability(float logit, double log_sum_exp) {
    return static_cast<float>(static_cast<double>(logit) - log_sum_exp);
}

}  // namespace onebit
