#include "run/guesser.h"

#include <algorithm>
#include <utility>

namespace onebit {

namespace {

constexpr size_t kAlike = 3;         // tokens that a place must have in common with the end
constexpr size_t kMostAlike = 32;    // more of them say no more
constexpr int kMostPlaces = 24;      // that are looked at
constexpr size_t kBuckets = 1 << 13;

// Of the time, what guesses that turn out wrong may cost: a text in which they are never right comes at 0.98 of the speed
// that it has without.
constexpr double kMostLost = 0.02;
constexpr double kForget = 0.2;  // of the mean of plain steps, with each new one

}  // namespace

Guesser::Guesser(std::vector<int32_t> said, int most, bool always)
    : newest_(kBuckets, -1), ledger_(std::clamp(most, 1, kMost), always) {
    said_.reserve(said.size() + 256);
    previous_.reserve(said.size() + 256);
    for (const int32_t token : said) push(token);
}

int32_t Guesser::hash_at(size_t last) const {
    uint64_t mixed = 0;
    for (size_t i = 0; i < kAlike; ++i) mixed = (mixed + static_cast<uint32_t>(said_[last - i])) * 0x9e3779b97f4a7c15u;
    return static_cast<int32_t>(mixed >> 51);  // below kBuckets
}

void Guesser::push(int32_t token) {
    said_.push_back(token);
    previous_.push_back(-1);
    repeat_.heard();
    const size_t last = said_.size() - 1;
    if (said_.size() < kAlike) return;
    int32_t& newest = newest_[static_cast<size_t>(hash_at(last))];
    previous_[last] = std::exchange(newest, static_cast<int32_t>(last));
}

// How many tokens up to the one at a, and up to the one at b, are the same.
size_t Guesser::alike(size_t a, size_t b) const {
    const size_t most = std::min({a + 1, b + 1, kMostAlike});
    size_t n = 0;
    while (n < most && said_[a - n] == said_[b - n]) ++n;
    return n;
}

Guesser::Place Guesser::search() const {
    if (said_.size() < kAlike) return {};
    const size_t last = said_.size() - 1;
    Place best{0, kAlike - 1};
    int32_t at = previous_[last];
    for (int looked = 0; at >= 0 && looked < kMostPlaces; ++looked, at = previous_[static_cast<size_t>(at)]) {
        const size_t n = alike(static_cast<size_t>(at), last);
        if (n > best.alike) best = {static_cast<size_t>(at), n};
    }
    return best.alike < kAlike ? Place{} : best;
}

std::vector<int32_t> Guesser::guess(int limit) {
    const int count = ledger_.count(limit);
    if (count < 1) return {};
    std::vector<int32_t> tokens = repeat_.expected(count);
    const Place place = search();
    const auto alike = static_cast<int>(place.alike);
    if (alike > repeat_.alike() || (alike > 0 && tokens.empty())) {
        repeat_.begin(place.last + 1, alike);
        tokens = repeat_.expected(count);
    }
    return tokens;
}

bool Ledger::pays() const {
    if (always_) return true;
    return plain_ms_ > 0 && saved_ms_ > -kMostLost * all_ms_ - plain_ms_ / 2;
}

int Ledger::count(int limit) const { return pays() ? std::min(limit, always_ ? most_ : next_) : 0; }

void Ledger::plain(double ms) {
    all_ms_ += ms;
    plain_ms_ = plain_ms_ > 0 ? plain_ms_ + kForget * (ms - plain_ms_) : ms;
}

void Ledger::tried(int guesses, int right, double ms) {
    all_ms_ += ms;
    saved_ms_ += (1 + right) * plain_ms_ - ms;
    if (guesses > 0) next_ = right == guesses ? std::min(2 * guesses, most_) : std::min(std::max(2, right + 1), most_);
}

}  // namespace onebit
