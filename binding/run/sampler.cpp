#include "run/sampler.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "kernels/math.h"
#include "system/pool.h"

namespace onebit {

namespace {

double sum(const std::vector<double>& weights, size_t count) {
    double total = 0;
    for (size_t i = 0; i < count; ++i) total += weights[i];
    return total;
}

// How many of the first weights it takes to reach this sum.
size_t count_reaching(const std::vector<double>& weights, double target) {
    double total = 0;
    for (size_t i = 0; i < weights.size(); ++i) {
        total += weights[i];
        if (total >= target) return i + 1;
    }
    return weights.size();
}

uint32_t rotated(uint32_t x, int by) { return x << by | x >> (32 - by); }

// The finalizer of MurmurHash3 (Appleby): every bit of the input reaches every bit of the output.
uint32_t mix(uint32_t hash) {
    hash = (hash ^ hash >> 16) * 0x85ebca6bu;
    hash = (hash ^ hash >> 13) * 0xc2b2ae35u;
    return hash ^ hash >> 16;
}

}  // namespace

Random::Random(uint64_t seed) {
    const auto low = static_cast<uint32_t>(seed), high = static_cast<uint32_t>(seed >> 32);
    // One hash of both halves per word, so that neighbouring seeds have nothing in common.
    for (uint32_t i = 0; i < 4; ++i) state_[i] = mix(mix(low + (i + 1) * 0x9e3779b9u) ^ (high + i));
    if ((state_[0] | state_[1] | state_[2] | state_[3]) == 0) state_[0] = 1;
}

uint32_t Random::next() {
    const uint32_t result = rotated(state_[1] * 5, 7) * 9;
    const uint32_t shifted = state_[1] << 9;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= shifted;
    state_[3] = rotated(state_[3], 11);
    return result;
}

double Random::fraction() {
    const uint32_t high = next() >> 5;
    const uint32_t low = next() >> 6;
    return (static_cast<double>(high) * 0x1p26 + static_cast<double>(low)) * 0x1p-53;
}

Sampler::Sampler(SamplingOptions options, std::vector<int32_t> recent)
    : options_(std::move(options)), random_(options_.seed), recent_(std::move(recent)) {
    // For bound_beyond() only.
    const bool draws = options_.temperature > 0 && options_.temperature <= 1;
    options_.changes.wants_sum = draws && (options_.top_k == 0 || options_.top_k > options_.first);
}

Status Sampler::choose(const KernelSet& kernels, const float* logits, int n, CandidateScratch& scratch, Choice* out) {
    const DefaultFloats floats;  // JavaScript's thread chooses too
    count_recent();
    options_.changes.k = std::min(options_.first, n);
    choose_candidates(kernels, logits, n, options_.changes, scratch, &candidates_);
    if (candidates_.logits.empty()) return error("ERR_BAD_LOGITS", "Every token is forbidden: none can be chosen.");
    const float best = candidates_.logits[0];
    if (!std::isfinite(best) || std::isnan(candidates_.raw_log_sum_exp)) {
        return error("ERR_BAD_LOGITS", "The model's best logit is " + std::to_string(best) + ": no token can be chosen.");
    }
    int index = 0;
    if (options_.temperature > 0 && options_.top_k != 1) {
        const double draw = random_.fraction();
        index = pick(draw);
        if (index < 0) {
            options_.changes.k = n;
            choose_candidates(kernels, logits, n, options_.changes, scratch, &candidates_);
            index = pick(draw);
        }
    }
    const auto chosen = static_cast<size_t>(index);
    out->id = candidates_.ids[chosen];
    out->logprob = log_probability(logits[out->id], candidates_.raw_log_sum_exp);
    out->candidates = static_cast<int32_t>(candidates_.ids.size());
    if (options_.repeat_last_n > 0) recent_.push_back(out->id);
    return {};
}

// Each of the recent tokens once, with how often it occurs.
void Sampler::count_recent() {
    if (options_.repeat_last_n == 0) return;
    const size_t kept = std::min(recent_.size(), static_cast<size_t>(options_.repeat_last_n));
    recent_.erase(recent_.begin(), recent_.end() - static_cast<std::ptrdiff_t>(kept));
    std::vector<int32_t>& ids = options_.changes.penalty_ids;
    std::vector<int32_t>& counts = options_.changes.penalty_counts;
    ids = recent_;
    std::sort(ids.begin(), ids.end());
    counts.clear();
    size_t unique = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
        if (i > 0 && ids[i] == ids[unique - 1]) {
            ++counts.back();
            continue;
        }
        ids[unique++] = ids[i];
        counts.push_back(1);
    }
    ids.resize(unique);
}

void Sampler::fill_weights(std::vector<double>& weights, size_t count, double temperature) const {
    const std::vector<float>& logits = candidates_.logits;
    weights.resize(count);
    for (size_t i = 0; i < count; ++i) {
        weights[i] = exp_exact((static_cast<double>(logits[i]) - static_cast<double>(logits[0])) / temperature);
    }
}

// The index of the candidate that `draw` leads to; -1 when tokens beyond the candidates could be chosen or change the
// choice.
int Sampler::pick(double draw) {
    const int n = candidates_.tokens;
    const int wanted = options_.top_k > 0 ? std::min(options_.top_k, n) : n;
    const auto have = static_cast<int>(candidates_.logits.size());
    fill_weights(weights_, static_cast<size_t>(std::min(wanted, have)), options_.temperature);
    if (wanted <= have) return pick_with(0, draw);
    double low = 0;
    const double high = bound_beyond(&low);
    const int index = pick_with(high, draw);
    // Both ends of the bounds must lead to the same token.
    return low == high || index < 0 || index == pick_with(low, draw) ? index : -1;
}

// Bounds of the weights of all tokens beyond the candidates. At temperature 1 the log-sum-exp tells their sum; below it
// each shrinks at least as much as the last candidate, above it none is above the last candidate.
double Sampler::bound_beyond(double* low) {
    const double temperature = options_.temperature;
    const size_t have = weights_.size();
    const double most = static_cast<double>(static_cast<size_t>(candidates_.tokens) - have) * weights_[have - 1];
    *low = 0;
    if (temperature > 1) return most;
    const std::vector<float>& logits = candidates_.logits;
    fill_weights(plain_, have, 1);
    const double listed = sum(plain_, have);
    // The difference is what rounding leaves of it, down to nothing.
    const double mass = std::max(0.0, exp_exact(candidates_.log_sum_exp - static_cast<double>(logits[0])) - listed);
    if (temperature == 1) return *low = std::min(mass, most);
    const double last = static_cast<double>(logits[have - 1]) - static_cast<double>(logits[0]);
    const double shrink = exp_exact(last * (1 / temperature - 1));
    // Rounding of the log-sum-exp (a float's) may hide a little mass.
    return std::min(most, (mass + 1e-6 * listed) * shrink);
}

int Sampler::pick_with(double beyond, double draw) const {
    size_t kept = weights_.size();
    double mass = sum(weights_, kept);
    double rest = beyond;
    if (options_.top_p < 1) {
        const double target = options_.top_p * (mass + beyond);
        if (target <= mass) {
            kept = count_reaching(weights_, target);
            mass = sum(weights_, kept);
            rest = 0;
        }
        // Otherwise all candidates are in, and how many of those beyond cannot be told: min-p may still cut them off.
    }
    if (options_.min_p > 0 && weights_[kept - 1] < options_.min_p) {
        while (weights_[kept - 1] < options_.min_p) --kept;
        mass = sum(weights_, kept);
        rest = 0;
    }
    // Where top-p or min-p ends beyond the candidates, the total is not known, only that it is at most all of it.
    if (rest > 0 && (options_.top_p < 1 || options_.min_p > 0)) return -1;
    const double target = draw * (mass + rest);
    double total = 0;
    for (size_t i = 0; i < kept; ++i) {
        total += weights_[i];
        if (total > target) return static_cast<int>(i);
    }
    if (rest > 0) return -1;
    // Only rounding leads past the end: the last token that has any probability.
    while (kept > 1 && weights_[kept - 1] == 0) --kept;
    return static_cast<int>(kept) - 1;
}

}  // namespace onebit
