#include "run/drafter.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace onebit {

namespace {

// A token that the small model holds for less likely than this is not worth the step that finds out.
const float kLeastLogprob = std::log(0.4f);

SamplingOptions likeliest() {
    SamplingOptions options;
    options.temperature = 0;
    options.first = 1;
    return options;
}

}  // namespace

Drafter::Drafter(std::shared_ptr<Engine> engine, Session* session, const std::atomic<bool>* stop, bool always)
    : engine_(std::move(engine)), always_(always) {
    item_.session = session;
    item_.stop = stop;
    said_ = static_cast<size_t>(session->length());
}

// Whether all tokens are in the cache, and with a sampler one was chosen behind them.
bool Drafter::compute(Pool& pool, std::vector<int32_t> tokens, Sampler* sampler, const std::atomic<bool>* cancel) {
    item_.tokens = std::move(tokens);
    item_.processed = 0;
    item_.sampler = sampler;
    StepRequest request;
    request.items = {&item_};
    request.cancel = cancel;
    return run_step(*engine_, pool, request).ok() && item_.all_processed() && (!sampler || item_.sampled.ok());
}

void Drafter::settle(const std::vector<int32_t>& said) {
    size_t agreed = std::min(said_, said.size());
    for (size_t i = 0; i < guessed_.size() && agreed < said.size() && guessed_[i] == said[agreed]; ++i) ++agreed;
    guessed_.clear();
    item_.session->rewind(static_cast<int>(agreed));
    said_ = static_cast<size_t>(item_.session->length());
}

void Drafter::read(Pool& pool, const std::vector<int32_t>& said, const std::atomic<bool>* cancel) {
    settle(said);
    if (said.size() < said_ + 2 || said.size() > static_cast<size_t>(item_.session->capacity())) return;
    compute(pool, {said.begin() + static_cast<std::ptrdiff_t>(said_), said.end() - 1}, nullptr, cancel);
    said_ = static_cast<size_t>(item_.session->length());
}

std::vector<int32_t> Drafter::guess(Pool& pool, const std::vector<int32_t>& said, int limit, const std::atomic<bool>* cancel) {
    settle(said);
    const int room = item_.session->capacity() - static_cast<int>(said.size()) + 1;  // the last guess need not be computed
    const int most = said.empty() ? 0 : std::min(limit, room);
    if (most < 1) return {};
    if (said_ == said.size()) {  // what follows the last token was not kept
        item_.session->rewind(static_cast<int>(--said_));
    }
    Sampler sampler(likeliest(), {});
    std::vector<int32_t> tokens(said.begin() + static_cast<std::ptrdiff_t>(said_), said.end());
    while (static_cast<int>(guessed_.size()) < most && compute(pool, std::move(tokens), &sampler, cancel)) {
        const Choice choice = item_.choices.back();
        if (!always_ && choice.logprob < kLeastLogprob) break;
        guessed_.push_back(choice.id);
        tokens = {choice.id};
    }
    // Of a prompt that was cancelled half way only that half is there; otherwise everything that was said.
    said_ = std::min(said.size(), static_cast<size_t>(item_.session->length()));
    if (said_ < said.size()) guessed_.clear();
    return guessed_;
}

}  // namespace onebit
