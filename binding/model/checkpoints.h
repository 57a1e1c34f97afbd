// States of the delta rule as they were at earlier positions: where a session can go back to, since a state itself cannot.
// All sessions of a model share one limit of memory, and forks share what they have in common.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

namespace onebit {

// The bytes of a state. Who holds them can read them whatever is thinned.
using StateBytes = std::shared_ptr<const unsigned char[]>;

// A state at a position. Its bytes go when it is thinned, or with the last session that has it.
struct Checkpoint {
    const int length;
    StateBytes bytes;          // null: thinned. Guarded by the store's mutex, as what follows.
    uint64_t last_use = 0;
};

class Checkpoints {
public:
    // limit: bytes of all of them together.
    explicit Checkpoints(uint64_t limit = kDefaultLimit) : limit_(limit) {}
    static constexpr uint64_t kDefaultLimit = uint64_t{256} << 20;

    // Adds a state at `length`, which is behind all of `kept`, a session's in order; others go where there is no room for it.
    // Without memory, or with a limit below the state's size, nothing is kept.
    void keep(std::vector<std::shared_ptr<Checkpoint>>& kept, int length, const unsigned char* state, size_t bytes);
    // The same in two parts, for a state that is written by whoever computes it. room: null where nothing is to be kept.
    std::shared_ptr<unsigned char[]> room(size_t bytes) const;
    void keep(std::vector<std::shared_ptr<Checkpoint>>& kept, int length, StateBytes state, size_t bytes);

    // The last of `kept` at or before `length` that is still there, and its length; null and 0 where there is none.
    struct Found {
        int length = 0;
        StateBytes bytes;
    };
    Found find(const std::vector<std::shared_ptr<Checkpoint>>& kept, int length);
    // All of `kept` that are still there, at most so many of the last.
    std::vector<Found> newest(const std::vector<std::shared_ptr<Checkpoint>>& kept, size_t most);

    void set_limit(uint64_t bytes);
    uint64_t bytes();  // of all that are there

private:
    void thin(uint64_t limit, std::vector<std::shared_ptr<Checkpoint>>* own, int end);
    void forget_dead();

    struct Entry {
        std::weak_ptr<Checkpoint> checkpoint;
        size_t bytes;
    };
    std::mutex mutex_;
    std::atomic<uint64_t> limit_;
    uint64_t uses_ = 0;
    std::vector<Entry> all_;
};

}  // namespace onebit
