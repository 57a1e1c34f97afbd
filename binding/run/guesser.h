// Guesses of the tokens that follow, from what was said before ("prompt lookup": Saxena, 2023). A step that computes several
// tokens reads the weights once, so that guesses that are right come nearly for nothing; which ones are, the sampler says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "run/repeat.h"

namespace onebit {

// Whether guesses of one kind pay, and how many are made at a time.
class Ledger {
public:
    // most: guesses at a time. always: so many, whether that pays or not.
    Ledger(int most, bool always) : most_(most), always_(always) {}

    bool always() const { return always_; }
    // None where guessing does not pay, with a first try before anything is known to be lost or won.
    int count(int limit) const;
    // A step took so many ms: one without guesses; one with a token that was known and `guesses` more, of which the first `right`
    // were right, none where there was nothing to guess; and one with guesses of another kind.
    void plain(double ms);
    void tried(int guesses, int right, double ms);
    void other(double ms) { all_ms_ += ms; }

private:
    bool pays() const;

    const int most_;
    const bool always_;
    int next_ = 4;
    // ms: of a step without guesses, of all steps, and what guesses have saved of it.
    double plain_ms_ = 0, all_ms_ = 0, saved_ms_ = 0;
};

class Guesser {
public:
    static constexpr int kMost = 32;

    // said: the tokens so far. most: 1..kMost guesses at a time. always: so many, whether that pays or not.
    Guesser(std::vector<int32_t> said, int most, bool always);
    Guesser(const Guesser&) = delete;  // repeat_ reads said_

    void push(int32_t token);

    // At most `limit` tokens that may follow the last one: those behind the place that most resembles the end of what was said,
    // by the tokens before it, with what was changed since it is said once more. None where no place has the same three, and
    // where guessing does not pay.
    std::vector<int32_t> guess(int limit);

    const std::vector<int32_t>& said() const { return said_; }
    Ledger& ledger() { return ledger_; }

private:
    // The last token of a place, and how many up to there are as at the end; none: 0.
    struct Place {
        size_t last = 0;
        size_t alike = 0;
    };
    Place search() const;
    int32_t hash_at(size_t last) const;
    size_t alike(size_t a, size_t b) const;

    std::vector<int32_t> said_;
    std::vector<int32_t> newest_;    // by hash of three tokens: index of the last of them, newest first; -1: none
    std::vector<int32_t> previous_;  // by that index: the one before it with the same hash
    Repeat repeat_{said_};
    Ledger ledger_;
};

}  // namespace onebit
