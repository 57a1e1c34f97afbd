#include "run/candidates.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "kernels/math.h"

namespace onebit {

namespace {

constexpr int kColumns = 1024;  // so that the column maxima stay in the first-level cache
constexpr int kStrip = 32;  // compilers unroll a loop of 16 before they would vectorise it

// Ascending keys are descending logits, then ascending ids. -0 counts as +0, so that it ties with it.
uint64_t make_key(float logit, int id) {
    const uint32_t bits = std::bit_cast<uint32_t>(logit + 0.0f);
    const uint32_t ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return static_cast<uint64_t>(~ascending) << 32 | static_cast<uint32_t>(id);
}

// A value that at least k of the n logits reach, close below the k-th largest: the k-th largest of kColumns column
// maxima, each over every kColumns-th logit. (With 1,024 columns and k = 256 about 1.2 k logits reach it.)
float threshold(const float* logits, int n, int k, std::vector<float>& column_max) {
    column_max.assign(logits, logits + kColumns);
    float* const max = column_max.data();
    int i = kColumns;
    for (; i + kColumns <= n; i += kColumns) {
        for (int j = 0; j < kColumns; ++j) max[j] = logits[i + j] > max[j] ? logits[i + j] : max[j];
    }
    for (int j = 0; i + j < n; ++j) max[j] = std::max(max[j], logits[i + j]);
    const auto nth = column_max.begin() + (k - 1);
    std::nth_element(column_max.begin(), nth, column_max.end(), std::greater<float>());
    return *nth;
}

// Appends the keys of all logits that reach `least`.
void collect(const float* logits, int n, float least, std::vector<uint64_t>& keys) {
    int i = 0;
    for (; i + kStrip <= n; i += kStrip) {
        int reached = 0;  // one test for a strip: few strips have any
        for (int j = 0; j < kStrip; ++j) reached |= logits[i + j] >= least;
        if (!reached) continue;
        for (int j = 0; j < kStrip; ++j) {
            if (logits[i + j] >= least) keys.push_back(make_key(logits[i + j], i + j));
        }
    }
    for (; i < n; ++i) {
        if (logits[i] >= least) keys.push_back(make_key(logits[i], i));
    }
}

void change_logits(const Shortlist& shortlist, float* logits) {
    for (size_t i = 0; i < shortlist.penalty_ids.size(); ++i) {
        float& logit = logits[shortlist.penalty_ids[i]];
        logit = logit > 0 ? logit / shortlist.repeat_penalty : logit * shortlist.repeat_penalty;
        const float count = static_cast<float>(shortlist.penalty_counts[i]);
        const float repeated = count * shortlist.frequency_penalty;
        logit -= shortlist.presence_penalty + repeated;
    }
    for (size_t i = 0; i < shortlist.bias_ids.size(); ++i) {
        logits[shortlist.bias_ids[i]] += shortlist.bias_values[i];
    }
}

}  // namespace

double log_sum_exp(const KernelSet& kernels, const float* logits, int n) {
    float max = 0, sum = 0;
    kernels.max_sum_exp(&max, &sum, logits, n);
    return static_cast<double>(max) + log_exact(static_cast<double>(sum));
}

int32_t key_id(uint64_t key) { return static_cast<int32_t>(key & 0xffffffffu); }

void top_k(const float* logits, int n, int k, CandidateScratch& scratch) {
    std::vector<uint64_t>& keys = scratch.keys;
    keys.clear();
    // Few columns or a long list: the threshold would be far too low to be worth finding.
    const bool worth = n >= 2 * kColumns && k <= kColumns / 2;
    collect(logits, n, worth ? threshold(logits, n, k, scratch.column_max) : -std::numeric_limits<float>::infinity(),
            keys);
    const auto end = keys.begin() + k;
    if (end != keys.end()) std::nth_element(keys.begin(), end, keys.end());
    std::sort(keys.begin(), end);
}

void choose_candidates(const KernelSet& kernels, const float* logits, int n, const Shortlist& shortlist,
                       CandidateScratch& scratch, Candidates* out) {
    const float* changed = logits;
    out->raw_log_sum_exp = log_sum_exp(kernels, logits, n);
    out->log_sum_exp = out->raw_log_sum_exp;
    if (shortlist.changes_logits()) {
        scratch.changed.assign(logits, logits + n);
        change_logits(shortlist, scratch.changed.data());
        changed = scratch.changed.data();
        out->log_sum_exp = log_sum_exp(kernels, changed, n);
    }
    top_k(changed, n, shortlist.k, scratch);
    const auto count = static_cast<size_t>(shortlist.k);
    out->ids.resize(count);
    out->logits.resize(count);
    for (size_t i = 0; i < count; ++i) {
        const int32_t id = key_id(scratch.keys[i]);
        out->ids[i] = id;
        out->logits[i] = changed[id];
    }
}

}  // namespace onebit
