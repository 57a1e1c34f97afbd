#include "run/candidates.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>

#include "kernels/math.h"

namespace onebit {

namespace {

constexpr int kColumns = 1024;  // so that the column maxima stay in the first-level cache
constexpr float kForbidden = -std::numeric_limits<float>::infinity();
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
        if (!shortlist.allows(shortlist.penalty_ids[i])) continue;
        float& logit = logits[shortlist.penalty_ids[i]];
        logit = logit > 0 ? logit / shortlist.repeat_penalty : logit * shortlist.repeat_penalty;
        const float count = static_cast<float>(shortlist.penalty_counts[i]);
        const float repeated = count * shortlist.frequency_penalty;
        logit -= shortlist.presence_penalty + repeated;
    }
    for (size_t i = 0; i < shortlist.bias_ids.size(); ++i) {
        if (shortlist.allows(shortlist.bias_ids[i])) logits[shortlist.bias_ids[i]] += shortlist.bias_values[i];
    }
}

constexpr int kWordBits = 32;
constexpr auto kBits = [] {  // loaded, not shifted: so that compilers vectorise what looks at them
    std::array<uint32_t, kWordBits> bits{};
    for (int j = 0; j < kWordBits; ++j) bits[static_cast<size_t>(j)] = uint32_t{1} << j;
    return bits;
}();

// Copies kWordBits logits, with -infinity in the place of those whose bit is 0.
void copy_word(uint32_t word, const float* logits, float* out) {
    for (size_t j = 0; j < kWordBits; ++j) {
        const float logit = logits[j];  // loaded in any case: a load that hangs on a test is not vectorised
        out[j] = (word & kBits[j]) != 0 ? logit : kForbidden;
    }
}

// The same for n of them; returns how many are allowed.
int copy_allowed(const std::vector<int32_t>& allowed, const float* logits, int n, float* out) {
    int count = 0, i = 0;
    const auto word_at = [&](int at) { return static_cast<uint32_t>(allowed[static_cast<size_t>(at / kWordBits)]); };
    for (; i + kWordBits <= n; i += kWordBits) {
        copy_word(word_at(i), logits + i, out + i);
        count += std::popcount(word_at(i));
    }
    for (; i < n; ++i) {
        const bool may = (word_at(i) >> i % kWordBits & 1) != 0;
        out[i] = may ? logits[i] : kForbidden;
        count += may;
    }
    return count;
}

}  // namespace

double log_sum_exp(const KernelSet& kernels, const float* logits, int n) {
    float max = 0, sum = 0;
    kernels.max_sum_exp(&max, &sum, logits, n);
    return static_cast<double>(max) + log_exact(static_cast<double>(sum));
}

int32_t key_id(uint64_t key) { return static_cast<int32_t>(key & 0xffffffffu); }

size_t top_k(const float* logits, int n, int k, CandidateScratch& scratch, float least) {
    std::vector<uint64_t>& keys = scratch.keys;
    keys.clear();
    // Few columns or a long list: the threshold would be far too low to be worth finding.
    const bool worth = n >= 2 * kColumns && k <= kColumns / 2;
    if (worth) least = std::max(least, threshold(logits, n, k, scratch.column_max));
    collect(logits, n, least, keys);
    const size_t count = std::min(static_cast<size_t>(k), keys.size());
    const auto end = keys.begin() + static_cast<std::ptrdiff_t>(count);
    if (end != keys.end()) std::nth_element(keys.begin(), end, keys.end());
    std::sort(keys.begin(), end);
    return count;
}

void choose_candidates(const KernelSet& kernels, const float* logits, int n, const Shortlist& shortlist,
                       CandidateScratch& scratch, Candidates* out) {
    const float* changed = logits;
    out->raw_log_sum_exp = log_sum_exp(kernels, logits, n);
    out->log_sum_exp = out->raw_log_sum_exp;
    out->tokens = n;
    // A mask often leaves few tokens or none: sorting the forbidden ones too would take longer than all the rest.
    const bool masked = !shortlist.allowed.empty();
    if (shortlist.changes_logits()) {
        scratch.changed.resize(static_cast<size_t>(n));
        if (masked) out->tokens = copy_allowed(shortlist.allowed, logits, n, scratch.changed.data());
        else std::copy(logits, logits + n, scratch.changed.begin());
        change_logits(shortlist, scratch.changed.data());
        changed = scratch.changed.data();
        if (shortlist.wants_sum) out->log_sum_exp = log_sum_exp(kernels, changed, n);
    }
    const auto none = -std::numeric_limits<float>::max();
    const size_t count = top_k(changed, n, shortlist.k, scratch, masked ? none : kForbidden);
    // Of those that are allowed a bias may have forbidden some.
    if (count < static_cast<size_t>(shortlist.k)) out->tokens = static_cast<int>(count);
    out->ids.resize(count);
    out->logits.resize(count);
    for (size_t i = 0; i < count; ++i) {
        const int32_t id = key_id(scratch.keys[i]);
        out->ids[i] = id;
        out->logits[i] = changed[id];
    }
}

}  // namespace onebit
