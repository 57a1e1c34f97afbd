#include "run/generation.h"

#include <algorithm>
#include <utility>

namespace onebit {

namespace {

// A consumer that falls behind (it writes to a slow terminal, say) finds this much computed, and no more: whatever lies
// ahead of a consumer that leaves was for nothing.
constexpr double kAheadMs = 20;
constexpr int64_t kMostAhead = 48;

// JavaScript needs about 100 us of a core for each time it is woken, whatever it is told, and all cores are computing. So
// tokens that follow each other faster than this are told together; nobody sees the difference.
constexpr auto kTellTime = std::chrono::milliseconds(8);
constexpr size_t kMostTold = 16;

}  // namespace

void Generation::run(Pool& pool) {
    going_on_ = false;
    pool.resize(engine->threads);
    request.cancel = cancel.get();
    request.items = {&item};
    const int before = item.session->length();
    const auto start = Clock::now();
    add_guesses(pool);
    status = run_step(*engine, pool, request);
    const auto end = Clock::now();
    ++steps_;
    if (status.ok() && (!item.sampler || !item.all_processed())) return;
    if (status.ok()) status = item.sampled;
    if (!status.ok()) {
        if (item.guesses == 0) return;
        status = {};  // the text may not go where that went wrong; if it does, it will again
    }
    const double ms = std::chrono::duration<double, std::milli>(end - start).count();
    take_choices(ms);
    if (go_on_from(before)) decide(ms / static_cast<double>(std::max<size_t>(item.choices.size(), 1)));
    if (end - told_ < kTellTime && untold_.size() < kMostTold) return;
    told_ = end;
    tell_all();
}

// What the sampler chose, up to the first stop token.
void Generation::take_choices(double ms) {
    std::vector<Choice>& choices = item.choices;
    const auto is_stop = [&](const Choice& one) {
        return std::find(stop_tokens.begin(), stop_tokens.end(), one.id) != stop_tokens.end();
    };
    const auto stop = std::find_if(choices.begin(), choices.end(), is_stop);
    if (stop != choices.end()) {
        choices.erase(stop + 1, choices.end());
        most = static_cast<int64_t>(choices.size());  // nothing follows
    }
    const auto count = static_cast<int64_t>(choices.size());
    // A prompt takes another time than a token.
    const bool is_decode = item.answers || item.tokens.size() == static_cast<size_t>(item.guesses) + 1;
    if (guesser && count > 0 && is_decode) learn(static_cast<int>(count) - 1, ms);
    const size_t top = static_cast<size_t>(item.score.top);
    for (size_t i = 0; i < choices.size(); ++i) {
        Made made{choices[i], {}, ms / static_cast<double>(count)};
        if (item.wants_scores) {
            const auto ids = item.scores.top_ids.begin() + static_cast<std::ptrdiff_t>(i * top);
            const auto logprobs = item.scores.top_logprobs.begin() + static_cast<std::ptrdiff_t>(i * top);
            made.scores.top_ids.assign(ids, ids + static_cast<std::ptrdiff_t>(top));
            made.scores.top_logprobs.assign(logprobs, logprobs + static_cast<std::ptrdiff_t>(top));
        }
        untold_.push_back(std::move(made));
        if (guesser) guesser->push(choices[i].id);
    }
    item.scores = {};
    most -= count;
    progress->made += count;
}

// The session goes back to where guesses were wrong; item.tokens are what it does not hold of all that is known by now, at least
// one. False when nothing is to follow. before: its length before the step.
bool Generation::go_on_from(int before) {
    std::vector<int32_t>& tokens = item.tokens;
    Ledger* const asked_now = guesser ? asked() : nullptr;
    tokens.resize(tokens.size() - static_cast<size_t>(std::exchange(item.guesses, 0)));
    for (const Choice& one : item.choices) tokens.push_back(one.id);
    const int agreed = before + static_cast<int>(tokens.size()) - 1;
    if (item.session->length() > agreed) item.session->rewind(agreed);
    owing_ = item.session->length() < agreed ? asked_now : nullptr;
    tokens.erase(tokens.begin(), tokens.begin() + (item.session->length() - before));
    item.processed = 0;
    item.answers = true;
    return most > 0 && item.session->length() < item.session->capacity();
}

// Whether the token that was chosen is computed too, and with which guesses.
void Generation::decide(double ms) {
    item.score.from = static_cast<int>(item.tokens.size()) - 1;
    const auto ahead = std::clamp(static_cast<int64_t>(kAheadMs / std::max(ms, 0.01)), int64_t{1}, kMostAhead);
    const bool is_ahead = progress->made - progress->taken.load(std::memory_order_relaxed) > ahead;
    catching_up_ = is_ahead && owing_;  // whoever goes on later knows the last token only
    behind_ = is_ahead && !owing_;
    going_on_ = !behind_;
}

// Not behind a step in which nothing was chosen: there a guess went wrong. Before the first one the drafter reads the prompt too.
void Generation::add_guesses(Pool& pool) {
    drafted_ = false;
    if (!guesser || item.guesses > 0 || catching_up_) return;
    if (item.choices.empty()) {
        if (drafter && item.processed == 0) drafter->read(pool, guesser->said(), request.cancel);
        return;
    }
    const int64_t room = item.session->capacity() - item.session->length() - static_cast<int64_t>(item.tokens.size());
    int limit = static_cast<int>(std::min(most - 1, room));
    if (item.session->state_bytes() > 0) limit = std::min(limit, computed_at_once(request, pool) - static_cast<int>(item.tokens.size()));
    std::vector<int32_t> guesses = guesser->guess(limit);
    if (guesses.empty() && drafter) {
        const int count = draft_ledger->count(limit);
        drafted_ = count > 0;
        if (drafted_) guesses = drafter->guess(pool, guesser->said(), count, request.cancel);
    }
    item.tokens.insert(item.tokens.end(), guesses.begin(), guesses.end());
    item.guesses = static_cast<int>(guesses.size());
}

// Whose step this is: of those who guessed; a drafter that was asked and was not sure of anything has cost what it took.
Ledger* Generation::asked() {
    if (drafted_) return draft_ledger;
    return item.guesses > 0 ? &guesser->ledger() : owing_;
}

void Generation::learn(int right, double ms) {
    Ledger* const mine = asked();
    for (Ledger* one : {&guesser->ledger(), drafter ? draft_ledger : nullptr}) {
        if (!one) continue;
        if (!mine) one->plain(ms);
        else if (one == mine) one->tried(item.guesses, right, ms);
        else one->other(ms);
    }
}

bool Generation::again(bool others) {
    const bool more = going_on_ && status.ok() && !(item.stop && item.stop->load(std::memory_order_relaxed));
    if (more && !others) return true;
    const Status told = caught([this] { return tell_all(), Status{}; });
    if (status.ok()) status = told;
    return more && told.ok();
}

void Generation::tell_all() {
    if (!untold_.empty()) tell(std::exchange(untold_, {}));
}

}  // namespace onebit
