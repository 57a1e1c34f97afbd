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
    const auto start = Clock::now();
    status = run_step(*engine, pool, request);
    const auto end = Clock::now();
    if (!status.ok() || !item.sampler || !item.all_processed()) return;
    status = item.sampled;
    if (!status.ok()) return;
    --most;
    ++progress->made;
    const double ms = std::chrono::duration<double, std::milli>(end - start).count();
    untold_.push_back({item.choice, std::exchange(item.scores, {}), ms});
    decide(ms);
    if (end - told_ < kTellTime && untold_.size() < kMostTold) return;
    told_ = end;
    tell_all();
}

// Whether the token that was chosen is computed too.
void Generation::decide(double ms) {
    const int32_t id = item.choice.id;
    if (most == 0 || item.session->length() == item.session->capacity() ||
        std::find(stop_tokens.begin(), stop_tokens.end(), id) != stop_tokens.end()) {
        return;
    }
    item.tokens.assign(1, id);
    item.processed = 0;
    item.score.from = 0;
    const auto ahead = std::clamp(static_cast<int64_t>(kAheadMs / std::max(ms, 0.01)), int64_t{1}, kMostAhead);
    behind_ = progress->made - progress->taken.load(std::memory_order_relaxed) > ahead;
    going_on_ = !behind_;
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
