// A place of what was said that is being said once more, with changes: the letter that was asked for again with "chair" for "lamp".
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace onebit {

class Repeat {
public:
    // said: the tokens so far, owned by whoever calls; it grows by one before each `heard`.
    explicit Repeat(const std::vector<int32_t>& said) : said_(said) {}

    // The next token is taken to be the one at `at`, since `alike` tokens before both are the same.
    void begin(size_t at, int alike);
    // One token more was said.
    void heard();

    // How sure it is: 0 where nothing is repeated; tokens in a row that came as expected, half of them lost with each that did not.
    int alike() const { return alike_; }
    // The `count` tokens that would follow; what lies beyond the end of what was said, from themselves. None in the midst of what
    // is said in the place of something else.
    std::vector<int32_t> expected(int count) const;

private:
    // What was said in the place of something else, and is expected to be said there again.
    struct Change {
        std::vector<int32_t> old_tokens, new_tokens;
    };
    // Where the next token stands: at `at`, or `said` tokens of a change's new ones behind it.
    struct Cursor {
        size_t at = 0;
        size_t change = kNone;
        size_t said = 0;
    };
    static constexpr size_t kNone = SIZE_MAX;

    bool goes_on() const { return alike_ > 0; }
    // Enters a change whose old tokens stand at the cursor.
    Cursor entered(Cursor cursor) const;
    Cursor advanced(Cursor cursor) const;
    int32_t token_at(const Cursor& cursor, const std::vector<int32_t>& beyond) const;
    void part(size_t said);
    void rejoin();
    void learn(size_t old_end, size_t new_end);
    void end() { alike_ = 0, parted_ = false; }

    const std::vector<int32_t>& said_;
    std::vector<Change> changes_;
    Cursor next_;
    int alike_ = 0;
    // Since when something else is said: the place of the first token that did not come, and of the first that came in its place.
    bool parted_ = false;
    size_t parted_at_ = 0, parted_said_ = 0;
};

}  // namespace onebit
