#include "model/checkpoints.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace onebit {

namespace {

using Kept = std::vector<std::shared_ptr<Checkpoint>>;

// Of a session's own checkpoints the one that is missed least: whose absence makes the shortest way to compute again, for how
// long ago it was. What stays lies the further apart the older it is. The last one only where there is no other.
size_t least_missed(const Kept& kept, int end) {
    size_t best = 0;
    double least = 0;
    for (size_t i = 0; i + 1 < kept.size(); ++i) {
        const int before = i == 0 ? 0 : kept[i - 1]->length;
        const double gap = kept[i + 1]->length - before, age = end - kept[i]->length;
        if (i == 0 || gap / age < least) least = gap / age, best = i;
    }
    return best;
}

}  // namespace

std::shared_ptr<unsigned char[]> Checkpoints::room(size_t bytes) const {
    if (bytes > limit_) return nullptr;
    return std::shared_ptr<unsigned char[]>(new (std::nothrow) unsigned char[bytes]);  // a session without it is only slower
}

void Checkpoints::keep(Kept& kept, int length, const unsigned char* state, size_t bytes) {
    const std::shared_ptr<unsigned char[]> copy = room(bytes);
    if (!copy) return;
    std::memcpy(copy.get(), state, bytes);
    keep(kept, length, StateBytes(copy), bytes);
}

void Checkpoints::keep(Kept& kept, int length, StateBytes state, size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (bytes > limit_) return;
    kept.erase(std::remove_if(kept.begin(), kept.end(), [](const auto& c) { return !c->bytes; }), kept.end());
    thin(limit_ - bytes, &kept, length);
    kept.push_back(std::make_shared<Checkpoint>(Checkpoint{length, std::move(state), ++uses_}));
    all_.push_back({kept.back(), bytes});
}

// Until all of them together are within the limit. own: of the session that asks, which lies at
// `end`; where it would lose its oldest, it loses the one that it misses least.
void Checkpoints::thin(uint64_t limit, Kept* own, int end) {
    forget_dead();
    uint64_t total = 0;
    for (const Entry& entry : all_) total += entry.bytes;
    while (total > limit) {
        const auto used = [](const Entry& entry) {
            const auto checkpoint = entry.checkpoint.lock();
            return checkpoint ? checkpoint->last_use : 0;
        };
        const auto oldest = std::min_element(all_.begin(), all_.end(), [&](const Entry& a, const Entry& b) { return used(a) < used(b); });
        std::shared_ptr<Checkpoint> gone = oldest->checkpoint.lock();
        if (own && gone && std::find(own->begin(), own->end(), gone) != own->end()) {
            const size_t i = least_missed(*own, end);
            gone = (*own)[i];
            own->erase(own->begin() + static_cast<std::ptrdiff_t>(i));
        }
        if (gone) gone->bytes.reset();
        const auto entry = std::find_if(all_.begin(), all_.end(), [&](const Entry& e) { return e.checkpoint.lock() == gone; });
        total -= entry->bytes;
        all_.erase(entry);
    }
}

void Checkpoints::forget_dead() {
    all_.erase(std::remove_if(all_.begin(), all_.end(), [](const Entry& entry) { return entry.checkpoint.expired(); }), all_.end());
}

Checkpoints::Found Checkpoints::find(const Kept& kept, int length) {
    const std::lock_guard lock(mutex_);
    for (auto it = kept.rbegin(); it != kept.rend(); ++it) {
        Checkpoint& checkpoint = **it;
        if (checkpoint.length > length || !checkpoint.bytes) continue;
        checkpoint.last_use = ++uses_;
        return {checkpoint.length, checkpoint.bytes};
    }
    return {};
}

std::vector<Checkpoints::Found> Checkpoints::newest(const Kept& kept, size_t most) {
    const std::lock_guard lock(mutex_);
    std::vector<Found> found;
    for (auto it = kept.rbegin(); it != kept.rend() && found.size() < most; ++it) {
        if ((*it)->bytes) found.push_back({(*it)->length, (*it)->bytes});
    }
    std::reverse(found.begin(), found.end());
    return found;
}

void Checkpoints::set_limit(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
    thin(limit_, nullptr, 0);
}

uint64_t Checkpoints::bytes() {
    const std::lock_guard lock(mutex_);
    forget_dead();
    uint64_t total = 0;
    for (const Entry& entry : all_) total += entry.bytes;
    return total;
}

}  // namespace onebit
