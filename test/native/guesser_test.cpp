// Guesses of what follows: from the place that most resembles the end, never more than asked for, and only where it pays.
#include "run/guesser.h"

#include <random>
#include <vector>

#include "check.h"

using namespace onebit;

namespace {

using Ids = std::vector<int32_t>;

Ids guess_after(const Ids& said, int most, int limit) { return Guesser(said, most, true).guess(limit); }

void from_what_was_said() {
    CHECK(guess_after({}, 4, 4).empty());
    CHECK(guess_after({1, 2}, 4, 4).empty());
    CHECK(guess_after({1, 2, 3, 4, 5}, 4, 4).empty());
    CHECK(guess_after({1, 2, 3, 4, 5, 9, 1, 2, 3}, 4, 4) == Ids({4, 5, 9, 1}));
    CHECK(guess_after({1, 2, 3, 4, 5, 9, 1, 2, 3}, 4, 2) == Ids({4, 5}));
    CHECK(guess_after({1, 2, 3, 4, 5, 9, 1, 2, 3}, 1, 4) == Ids({4}));
    CHECK(guess_after({1, 2, 3, 4, 5, 9, 1, 2, 3}, 4, 0).empty());
    // two tokens alike are too few
    CHECK(guess_after({1, 2, 3, 4, 9, 2, 3}, 4, 4).empty());
    // the newest of places that are equally alike; one that is more alike before it
    CHECK(guess_after({1, 2, 3, 4, 0, 1, 2, 3, 5, 7, 1, 2, 3}, 1, 1) == Ids({5}));
    CHECK(guess_after({8, 1, 2, 3, 4, 0, 1, 2, 3, 5, 8, 1, 2, 3}, 1, 1) == Ids({4}));
    // what is repeated without end is guessed as far as it was said
    CHECK(guess_after({7, 7, 7, 7, 7}, 8, 8) == Ids({7}));
    CHECK(guess_after({1, 2, 3, 1, 2, 3}, 8, 8) == Ids({1, 2, 3}));
}

// Against a plain search, with few different tokens so that there are many places, in what is said from the start and pushed.
void as_a_plain_search_finds() {
    std::mt19937 random(5);
    for (int round = 0; round < 300; ++round) {
        const int different = 2 + static_cast<int>(random() % 5), length = static_cast<int>(random() % 24);
        Ids said;
        for (int i = 0; i < length; ++i) said.push_back(static_cast<int32_t>(random() % static_cast<unsigned>(different)));
        Guesser pushed({}, 3, true);
        for (const int32_t token : said) pushed.push(token);
        const Ids found = pushed.guess(3);
        CHECK(found == Guesser(said, 3, true).guess(3));
        Ids wanted;
        int best = 2;
        for (int at = length - 2; at >= 2; --at) {
            int alike = 0;
            while (alike <= at && said[static_cast<size_t>(at - alike)] == said[static_cast<size_t>(length - 1 - alike)]) ++alike;
            if (alike <= best) continue;
            best = alike;
            wanted.assign(said.begin() + at + 1, said.begin() + std::min(at + 4, length));
        }
        CHECK(found == wanted);
    }
}

const Ids kSaid = {1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3};

void only_where_it_pays() {
    Guesser guesser(kSaid, 16, false);
    CHECK(guesser.guess(16).empty());  // how long a step takes is not known yet
    guesser.ledger().plain(10);
    CHECK(guesser.guess(16).size() == 4);
    // twice as many when all were right
    guesser.ledger().tried(4, 4, 12);
    CHECK(guesser.guess(16).size() == 8);
    guesser.ledger().tried(8, 1, 15);
    CHECK(guesser.guess(16).size() == 2);
    CHECK(guesser.guess(1).size() == 1);
}

// Guesses that are always wrong and cost half a step each: at most 2 % of the time, and the first try, are lost.
void little_is_lost() {
    Guesser guesser(kSaid, 16, false);
    double all = 0, lost = 0;
    for (int step = 0; step < 2000; ++step) {
        const auto guesses = static_cast<int>(guesser.guess(16).size());
        const double ms = guesses > 0 ? 15 : 10;
        if (guesses > 0) guesser.ledger().tried(guesses, 0, ms);
        else guesser.ledger().plain(ms);
        all += ms;
        lost += ms - 10;
    }
    CHECK(lost > 0);  // it tries again now and then
    CHECK(lost <= 0.02 * all + 10);
}

}  // namespace

int main() {
    from_what_was_said();
    as_a_plain_search_finds();
    only_where_it_pays();
    little_is_lost();
    return check::summary();
}
