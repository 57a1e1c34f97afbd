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
        if (!thread_.started() && !thread_.start(work, this)) {
            return error("ERR_NO_THREAD", "The system has no thread for the engine.");
        }
        done_.reserve(done_.size() + unfinished_ + 1);
        waiting_.reserve(unfinished_ + 1);
        waiting_.push_back(std::move(job));
        ++unfinished_;
        wanted_.store(true, std::memory_order_release);
    }
    wake_.notify_one();
    return {};
}

std::vector<std::unique_ptr<Job>> Worker::take_finished() {
    std::vector<std::unique_ptr<Job>> finished;
    const std::lock_guard<std::mutex> lock(mutex_);
    finished.reserve(done_.size());  // done_ keeps its room
    for (std::unique_ptr<Job>& job : done_) finished.push_back(std::move(job));
    done_.clear();
    return finished;
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

Thread::Result Worker::work(void* worker) {
    auto& self = *static_cast<Worker*>(worker);
    const DefaultFloats floats;
    std::unique_lock<std::mutex> lock(self.mutex_);
    for (;;) {
        self.wake_.wait(lock, [&] { return self.quit_ || !self.waiting_.empty(); });
        if (self.quit_) return Thread::Result{};
        std::unique_ptr<Job> job = std::move(self.waiting_.front());
        self.waiting_.erase(self.waiting_.begin());
        if (self.waiting_.empty()) self.wanted_.store(false, std::memory_order_relaxed);
        self.current_ = job->cancel;
        lock.unlock();
        try {
            job->run(self.pool_);
        } catch (const std::exception&) {
            job->status = {"ERR_OUT_OF_MEMORY", {}};
        }
        lock.lock();
        self.put_back(lock, std::move(job));
    }
}

// A job that has run goes to the end of the line, or among those that have ended.
void Worker::put_back(std::unique_lock<std::mutex>& lock, std::unique_ptr<Job> job) {
    current_.reset();
    if (job->again(!waiting_.empty())) return waiting_.push_back(std::move(job));
    done_.push_back(std::move(job));
    --unfinished_;
    lock.unlock();
    finished_();
    wait_briefly();
    lock.lock();
}

}  // namespace onebit
