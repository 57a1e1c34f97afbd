// Bytes on their way from files into a model's memory, in tasks that all threads share: the first error ends it, and whoever
// waits hears how far it is and can stop it.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>

#include "system/pool.h"
#include "system/status.h"

namespace onebit {

class Loading : public Task {
public:
    void run(int task, int thread) final {
        if (failed_.load(std::memory_order_relaxed)) return;
        Status status = caught([&] { return load(static_cast<size_t>(task), static_cast<size_t>(thread)); });
        if (status.ok()) return;
        std::lock_guard lock(mutex_);
        if (!failed_.exchange(true)) first_error_ = std::move(status);
    }

protected:
    // Both outlive this, and `cancel` may be null. `progress` gets the bytes done so far, one call at a time, on any thread.
    Loading(const std::atomic<bool>* cancel, const std::function<void(uint64_t)>& progress) : cancel_(cancel), progress_(progress) {}
    ~Loading() = default;

    virtual Status load(size_t task, size_t thread) = 0;

    // What the tasks came to. To be called once, after all.
    Status outcome() { return std::move(first_error_); }

    // ERR_ABORTED once somebody cancelled.
    Status goes_on() const {
        const bool cancelled = cancel_ && cancel_->load(std::memory_order_relaxed);
        return cancelled ? error("ERR_ABORTED", "Loading was cancelled.") : Status{};
    }

    void report(size_t bytes) {
        const uint64_t done = done_bytes_.fetch_add(bytes) + bytes;
        if (!progress_) return;
        std::lock_guard lock(mutex_);
        progress_(done);
    }

private:
    const std::atomic<bool>* cancel_;
    const std::function<void(uint64_t)>& progress_;
    std::mutex mutex_;
    std::atomic<bool> failed_{false};
    std::atomic<uint64_t> done_bytes_{0};
    Status first_error_;
};

}  // namespace onebit
