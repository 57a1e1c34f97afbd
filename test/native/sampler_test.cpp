// A seed means the same tokens on every machine and instruction set. (What the distribution is: test/23-sampler.test.ts.)
#include "run/sampler.h"

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "each_set.h"

using namespace onebit;

namespace {

constexpr int kVocab = 500;

// Multiples of 1/32, many of them equal.
std::vector<float> make_logits() {
    std::vector<float> logits;
    uint32_t state = 1;
    for (int i = 0; i < kVocab; ++i) {
        state = state * 1664525u + 1013904223u;
        logits.push_back((static_cast<float>(state >> 24) - 128) / 32);
    }
    return logits;
}

struct Case {
    double temperature;
    int top_k;
    double top_p, min_p;
    float presence_penalty;
    // Frozen: other ids here mean that users' seeds no longer give their texts.
    std::vector<int32_t> ids;
};

const Case kCases[] = {
    {1, 0, 1, 0, 0, {335, 485, 394, 140, 33, 284, 445, 336}},
    {0.8, 40, 0.95, 0.05, 0, {41, 86, 309, 180, 37, 358, 357, 40}},
    {0.6, 0, 0.9, 0, 0.5f, {489, 448, 250, 15, 358, 180, 369, 457}},
    {1.5, 0, 1, 0.1, 0, {479, 139, 91, 489, 397, 73, 37, 6}},
};

// `first`: how many candidates are looked at first, which may change nothing.
void check_case(const KernelSet& kernels, const Case& wanted, int first) {
    SamplingOptions options;
    options.temperature = wanted.temperature;
    options.top_k = wanted.top_k;
    options.top_p = wanted.top_p;
    options.min_p = wanted.min_p;
    options.changes.presence_penalty = wanted.presence_penalty;
    options.repeat_last_n = wanted.presence_penalty != 0 ? 64 : 0;
    options.first = first;
    options.seed = 42;
    Sampler sampler(options, {});
    const std::vector<float> logits = make_logits();
    CandidateScratch scratch;
    for (const int32_t id : wanted.ids) {
        Choice choice;
        CHECK(sampler.choose(kernels, logits.data(), kVocab, scratch, &choice).ok());
        CHECK(choice.id == id);
    }
}

// A mask means: as if the logits of the others were -infinity from the start. Only the log-probability is the model's own.
void check_masks(const KernelSet& kernels) {
    const std::vector<float> logits = make_logits();
    std::vector<float> masked = logits;
    std::vector<int32_t> mask((kVocab + 31) / 32);
    uint32_t state = 7;
    int left = 0;
    for (size_t i = 0; i < kVocab; ++i) {
        state = state * 1664525u + 1013904223u;
        if (state >> 28 < 3) mask[i / 32] |= static_cast<int32_t>(uint32_t{1} << i % 32), ++left;
        else masked[i] = -INFINITY;
    }
    const double sum = log_sum_exp(kernels, logits.data(), kVocab);
    for (const double temperature : {0.0, 0.7, 1.0, 1.6}) {
        for (const int first : {1, 40, 256, kVocab}) {
            for (const int other : {0, 1, 2, 3, 4}) {
                SamplingOptions options;
                options.temperature = temperature;
                options.first = first;
                options.top_k = other == 1 ? 5 : other == 2 ? left + 20 : 0;
                options.top_p = other == 3 ? 0.8 : 1;
                options.min_p = other == 4 ? 0.1 : 0;
                options.repeat_last_n = 20;
                options.changes.repeat_penalty = 1.3f;
                options.changes.bias_ids = {0, 1, 2, 3, 4, 5, 6, 7};
                options.changes.bias_values = {9, 9, 9, 9, -INFINITY, -INFINITY, 9, 9};
                options.seed = static_cast<uint64_t>(first);
                Sampler plain(options, {1, 2, 3}), with_mask(options, {1, 2, 3});
                with_mask.allow(mask);
                CandidateScratch scratch;
                for (int i = 0; i < 40; ++i) {
                    Choice expected, choice;
                    CHECK(plain.choose(kernels, masked.data(), kVocab, scratch, &expected).ok());
                    CHECK(with_mask.choose(kernels, logits.data(), kVocab, scratch, &choice).ok());
                    CHECK(choice.id == expected.id && !std::isinf(masked[static_cast<size_t>(choice.id)]));
                    CHECK(choice.logprob == log_probability(logits[static_cast<size_t>(choice.id)], sum));
                }
            }
        }
    }
    Sampler sampler(SamplingOptions{}, {});
    CandidateScratch scratch;
    Choice choice;
    sampler.allow(std::vector<int32_t>(mask.size(), 0));
    const Status none = sampler.choose(kernels, logits.data(), kVocab, scratch, &choice);
    CHECK(!none.ok() && std::string(none.code) == "ERR_BAD_LOGITS");
    sampler.allow({});
    CHECK(sampler.choose(kernels, logits.data(), kVocab, scratch, &choice).ok());
}

}  // namespace

int main() {
    check::each_set([](const KernelSet& kernels) {
        for (const Case& wanted : kCases) {
            for (const int first : {40, 256, kVocab}) check_case(kernels, wanted, first);
        }
        check_masks(kernels);
    });
    return check::summary();
}
