#include "system/worker.h"

#include <chrono>
#include <thread>
#include <utility>

namespace onebit {

namespace {

// Between two tokens JavaScript needs some 20 us; to be put to sleep and woken takes longer than that.
constexpr auto kSpinTime = std::chrono::microseconds(100);

}  // namespace

Status Worker::post(std::unique_ptr<Job> job) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (quit_) return error("ERR_CLOSED", "This Node environment is shutting down.");
        // It begins by waiting for the mutex.
        if (!thread_.started() && !thread_.start([this] { work(); })) {
            return error("ERR_NO_THREAD", "The system has no thread for the engine.");
        }
        waiting_.push_back(std::move(job));
        wanted_.store(true, std::memory_order_release);
    }
    wake_.notify_one();
    return {};
}

std::vector<std::unique_ptr<Job>> Worker::take_finished() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return std::exchange(done_, {});
}

void Worker::stop() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        quit_ = true;
        wanted_.store(true, std::memory_order_release);
        if (current_) current_->store(true, std::memory_order_relaxed);
    }
    wake_.notify_one();
    thread_.join();
    waiting_.clear();
    done_.clear();
    pool_.resize(1);
}

// Only where a core is left over: otherwise it would be the one that JavaScript needs.
void Worker::wait_briefly() const {
    if (static_cast<int>(std::thread::hardware_concurrency()) <= pool_.threads()) return;
    const auto end = std::chrono::steady_clock::now() + kSpinTime;
    while (!wanted_.load(std::memory_order_acquire) && std::chrono::steady_clock::now() < end) {
    }
}

void Worker::work() {
    use_default_float_environment();
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        wake_.wait(lock, [this] { return quit_ || !waiting_.empty(); });
        if (quit_) return;
        std::unique_ptr<Job> job = std::move(waiting_.front());
        waiting_.pop_front();
        if (waiting_.empty()) wanted_.store(false, std::memory_order_relaxed);
        current_ = job->cancel;
        lock.unlock();
        job->run(pool_);
        lock.lock();
        current_.reset();
        if (job->again(!waiting_.empty())) {
            waiting_.push_back(std::move(job));
            continue;
        }
        done_.push_back(std::move(job));
        lock.unlock();
        finished_();
        wait_briefly();
        lock.lock();
    }
}

}  // namespace onebit
