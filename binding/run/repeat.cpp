#include "run/repeat.h"

#include <algorithm>
#include <utility>

namespace onebit {

namespace {

constexpr int kSure = 3;          // tokens alike that are left when something else is said, or it is no repetition
constexpr int kMostAlike = 64;    // more of them say no more
constexpr size_t kMostApart = 8;  // tokens of a change
constexpr size_t kMostChanges = 8;

}  // namespace

void Repeat::begin(size_t at, int alike) {
    parted_ = false;
    alike_ = alike;
    next_ = entered({at});
}

Repeat::Cursor Repeat::entered(Cursor cursor) const {
    for (size_t i = 0; i < changes_.size(); ++i) {
        const std::vector<int32_t>& old_tokens = changes_[i].old_tokens;
        if (cursor.at + old_tokens.size() > said_.size()) continue;
        if (std::equal(old_tokens.begin(), old_tokens.end(), said_.begin() + static_cast<std::ptrdiff_t>(cursor.at))) {
            return {cursor.at, i, 0};
        }
    }
    return {cursor.at};
}

Repeat::Cursor Repeat::advanced(Cursor cursor) const {
    if (cursor.change == kNone) return entered({cursor.at + 1});
    const Change& change = changes_[cursor.change];
    if (cursor.said + 1 < change.new_tokens.size()) return {cursor.at, cursor.change, cursor.said + 1};
    return entered({cursor.at + change.old_tokens.size()});
}

// beyond: what follows the end of what was said
int32_t Repeat::token_at(const Cursor& cursor, const std::vector<int32_t>& beyond) const {
    if (cursor.change != kNone) return changes_[cursor.change].new_tokens[cursor.said];
    return cursor.at < said_.size() ? said_[cursor.at] : beyond[cursor.at - said_.size()];
}

std::vector<int32_t> Repeat::expected(int count) const {
    std::vector<int32_t> tokens;
    if (!goes_on() || (parted_ && said_.size() - parted_said_ > 1)) return tokens;
    Cursor cursor = next_;
    // The place itself may lie beyond the end, behind a change that was longer than what it took the place of.
    while (static_cast<int>(tokens.size()) < count && cursor.at < said_.size() + tokens.size()) {
        tokens.push_back(token_at(cursor, tokens));
        cursor = advanced(cursor);
    }
    return tokens;
}

void Repeat::heard() {
    if (!goes_on()) return;
    const size_t last = said_.size() - 1;
    if (parted_) return rejoin();
    if (next_.at >= last) return end();
    const int32_t token = said_[last];
    if (token_at(next_, {}) == token) {
        next_ = advanced(next_);
        alike_ = std::min(alike_ + 1, kMostAlike);
        return;
    }
    if (next_.change == kNone) return part(last);
    // Not changed here, or to something else: it is forgotten.
    const size_t said = next_.said;
    changes_.erase(changes_.begin() + static_cast<std::ptrdiff_t>(next_.change));
    next_ = {next_.at};
    if (said > 0 || said_[next_.at] != token) return part(last - said);
    next_ = advanced(next_);
}

// Something else is said from the token at `said` on. Most often it is one token for one.
void Repeat::part(size_t said) {
    alike_ /= 2;
    if (alike_ < kSure) return end();
    parted_ = true;
    parted_at_ = next_.at;
    parted_said_ = said;
    next_ = entered({next_.at + 1});
    // of what began as a change that was made before, more than one token may have been said
    if (said_.size() - said > 1) rejoin();
}

// Looks for the last token near the place where something else was said; a place as far behind it as the token is comes first.
void Repeat::rejoin() {
    const size_t last = said_.size() - 1, apart = last - parted_said_;
    if (apart > kMostApart) return end();
    const size_t end_of_search = std::min(parted_at_ + kMostApart + 1, last);
    const auto is_it = [&](size_t at) { return at < end_of_search && said_[at] == said_[last]; };
    size_t found = parted_at_ + apart;
    if (!is_it(found)) {
        found = parted_at_;
        while (found < end_of_search && !is_it(found)) ++found;
        if (found >= end_of_search) return;
    }
    learn(found, last);
    parted_ = false;
    next_ = entered({found + 1});
    ++alike_;
}

// old_end, new_end: where both go on alike
void Repeat::learn(size_t old_end, size_t new_end) {
    const auto tokens = [&](size_t from, size_t to) {
        return std::vector<int32_t>(said_.begin() + static_cast<std::ptrdiff_t>(from), said_.begin() + static_cast<std::ptrdiff_t>(to));
    };
    Change change{tokens(parted_at_, old_end), tokens(parted_said_, new_end)};
    if (change.old_tokens.empty() || change.new_tokens.empty()) return;
    std::erase_if(changes_, [&](const Change& one) { return one.old_tokens == change.old_tokens; });
    if (changes_.size() == kMostChanges) changes_.pop_back();
    changes_.insert(changes_.begin(), std::move(change));
}

}  // namespace onebit
