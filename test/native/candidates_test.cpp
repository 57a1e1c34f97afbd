// Shortlists, masked ones too, against a full sort, and log-sum-exps against plain double sums, on every instruction set.
#include "run/candidates.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "each_set.h"
#include "kernels/math.h"

using namespace onebit;

namespace {

uint64_t state = 88172645463325252u;
double uniform() {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return static_cast<double>(state >> 11) / 9007199254740992.0;
}

// Shapes of logits that a threshold could get wrong: all equal, sorted both ways, many ties, one giant, signed zeros.
std::vector<float> make_logits(int n, int shape) {
    std::vector<float> logits(static_cast<size_t>(n));
    for (int i = 0; i < n; ++i) {
        const double noise = 20 * (uniform() + uniform() + uniform()) - 30;
        double value = noise;
        if (shape == 1) value = 1.5;
        if (shape == 2) value = i;
        if (shape == 3) value = -i;
        if (shape == 4) value = std::floor(noise / 4);
        if (shape == 5) value = i == n / 3 ? 1e4 : noise;
        if (shape == 6) value = i % 2 == 0 ? 0.0 : -0.0;
        logits[static_cast<size_t>(i)] = static_cast<float>(value);
    }
    return logits;
}

double plain_log_sum_exp(const std::vector<float>& logits) {
    const double max = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += exp_exact(static_cast<double>(logit) - max);
    return max + log_exact(sum);
}

// What the contract says, in the plainest words.
std::vector<float> changed_plainly(std::vector<float> logits, const Shortlist& shortlist) {
    for (size_t i = 0; i < shortlist.penalty_ids.size(); ++i) {
        float& logit = logits[static_cast<size_t>(shortlist.penalty_ids[i])];
        logit = logit > 0 ? logit / shortlist.repeat_penalty : logit * shortlist.repeat_penalty;
        const float count = static_cast<float>(shortlist.penalty_counts[i]);
        logit -= shortlist.presence_penalty + count * shortlist.frequency_penalty;
    }
    for (size_t i = 0; i < shortlist.bias_ids.size(); ++i) {
        logits[static_cast<size_t>(shortlist.bias_ids[i])] += shortlist.bias_values[i];
    }
    for (size_t i = 0; i < logits.size() && !shortlist.allowed.empty(); ++i) {
        if ((static_cast<uint32_t>(shortlist.allowed[i / 32]) >> i % 32 & 1) == 0) logits[i] = -INFINITY;
    }
    return logits;
}

bool close(double a, double b) { return std::fabs(a - b) <= 1e-5 * (1 + std::fabs(b)); }

void compare(const KernelSet& kernels, const std::vector<float>& logits, const Shortlist& shortlist) {
    const int n = static_cast<int>(logits.size());
    CandidateScratch scratch;
    Candidates got;
    choose_candidates(kernels, logits.data(), n, shortlist, scratch, &got);
    const std::vector<float> changed = changed_plainly(logits, shortlist);
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        const float x = changed[static_cast<size_t>(a)], y = changed[static_cast<size_t>(b)];
        return x > y || (x == y && a < b);
    });
    size_t count = static_cast<size_t>(shortlist.k), possible = logits.size();
    if (!shortlist.allowed.empty()) {
        possible = static_cast<size_t>(std::count_if(changed.begin(), changed.end(), [](float x) { return !std::isinf(x); }));
        count = std::min(count, possible);
    }
    bool same = got.ids.size() == count;
    for (size_t i = 0; same && i < got.ids.size(); ++i) {
        const auto id = static_cast<size_t>(order[i]);
        same = got.ids[i] == order[i] && got.logits[i] == changed[id];
    }
    CHECK(same);
    CHECK(got.tokens == static_cast<int>(possible));
    CHECK(close(got.raw_log_sum_exp, plain_log_sum_exp(logits)));
    if (possible == 0) return;
    CHECK(close(got.log_sum_exp, plain_log_sum_exp(changed)));
}

void check_set(const KernelSet& kernels) {
    for (const int n : {1, 2, 31, 259, 2047, 2048, 2049, 5000, 49152}) {
        for (int shape = 0; shape <= 6; ++shape) {
            const std::vector<float> logits = make_logits(n, shape);
            for (const int k : {1, 2, 40, 256, 512, 513, 3000}) {
                Shortlist shortlist;
                shortlist.k = std::min(k, n);
                compare(kernels, logits, shortlist);
            }
            Shortlist shortlist;
            shortlist.k = std::min(40, n);
            shortlist.repeat_penalty = 1.25f;
            shortlist.presence_penalty = 0.5f;
            shortlist.frequency_penalty = 0.25f;
            for (int i = 0; i < n; i += 1 + n / 50) {
                shortlist.penalty_ids.push_back(i);
                shortlist.penalty_counts.push_back(1 + i % 3);
                shortlist.bias_ids.push_back(n - 1 - i);
                shortlist.bias_values.push_back(i % 2 == 0 ? 3.5f : -7.0f);
            }
            compare(kernels, logits, shortlist);
        }
    }
}

// Masks that allow none, one, some side by side, one in 40, about half, all but one, and all.
std::vector<int32_t> make_mask(int n, int shape) {
    std::vector<int32_t> words(static_cast<size_t>((n + 31) / 32));
    const int one = static_cast<int>(uniform() * n);
    const auto allowed = [&](int i) {
        switch (shape) {
            case 0: return false;
            case 1: return i == one;
            case 2: return i >= one && i < one + 90;
            case 3: return uniform() < 1.0 / 40;
            case 4: return uniform() < 0.5;
            case 5: return i != one;
            default: return true;
        }
    };
    for (int i = 0; i < n; ++i) {
        const uint32_t bit = allowed(i) ? uint32_t{1} << i % 32 : 0;
        words[static_cast<size_t>(i / 32)] |= static_cast<int32_t>(bit);
    }
    // There is no token for the last bits.
    if (n % 32 != 0 && uniform() < 0.5) words.back() |= static_cast<int32_t>(UINT32_MAX << n % 32);
    return words;
}

void check_masks(const KernelSet& kernels) {
    for (const int n : {1, 31, 32, 33, 259, 2047, 2049, 5000, 49152}) {
        for (int mask = 0; mask <= 6; ++mask) {
            const std::vector<float> logits = make_logits(n, mask % 5);
            Shortlist shortlist;
            shortlist.allowed = make_mask(n, mask);
            for (const int k : {1, 2, 40, 256, 3000, n}) {
                shortlist.k = std::min(k, n);
                compare(kernels, logits, shortlist);
            }
            shortlist.k = std::min(40, n);
            shortlist.repeat_penalty = 0.5f;
            for (int i = 0; i < n; i += 1 + n / 70) {  // neither brings a forbidden token back
                shortlist.penalty_ids.push_back(i);
                shortlist.penalty_counts.push_back(1);
                shortlist.bias_ids.push_back(i);
                shortlist.bias_values.push_back(1000.0f);
            }
            compare(kernels, logits, shortlist);
        }
    }
}

// A forbidden token is last, and does not spoil the sum.
void check_forbidden(const KernelSet& kernels) {
    const int n = 3000;
    const std::vector<float> logits(static_cast<size_t>(n), 0.25f);
    Shortlist shortlist;
    shortlist.k = 2;
    for (int i = 0; i < n - 1; ++i) {
        shortlist.bias_ids.push_back(i);
        shortlist.bias_values.push_back(-INFINITY);
    }
    CandidateScratch scratch;
    Candidates got;
    choose_candidates(kernels, logits.data(), n, shortlist, scratch, &got);
    CHECK(got.ids[0] == n - 1 && got.logits[0] == 0.25f);
    CHECK(got.ids[1] == 0 && std::isinf(got.logits[1]));
    CHECK(close(got.log_sum_exp, 0.25));
}

}  // namespace

int main() {
    check::each_set([](const KernelSet& kernels) {
        check_set(kernels);
        check_masks(kernels);
        check_forbidden(kernels);
    });
    return check::summary();
}
