// The thread of one Node environment that runs everything long: loading, steps, conversions. Jobs run in the order
// they were posted, one at a time, and each may use the Pool; one that wants to run again goes to the end of the line.
// Knows nothing of Node.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "system/pool.h"
#include "system/status.h"
#include "system/thread.h"

namespace onebit {

// Set to true by whoever wants the work to stop; looked at by the worker. Shared because neither outlives the other
// for sure.
using CancelFlag = std::shared_ptr<std::atomic<bool>>;

class Job {
public:
    virtual ~Job() = default;
    // On the worker thread. Should look at *cancel at least every 20 ms and return early when it is set.
    virtual void run(Pool& pool) = 0;
    // After run(): true to be run again once those that wait had their turn; others: whether any do. Nothing can be posted
    // between the answer and the new place in the line, so what was posted before sees it end, or waits behind it.
    virtual bool again(bool others) { return static_cast<void>(others), false; }

    CancelFlag cancel = std::make_shared<std::atomic<bool>>(false);
};

class Worker {
public:
    // finished: called on the worker thread when take_finished() has something new.
    explicit Worker(std::function<void()> finished) : finished_(std::move(finished)) {}
    ~Worker() { stop(); }
    Worker(const Worker&) = delete;
    Worker& operator=(const Worker&) = delete;

    // The first one starts the thread. ERR_CLOSED after stop(), ERR_NO_THREAD when the system refuses one (it may have one
    // for the next job); the job is destroyed then.
    Status post(std::unique_ptr<Job> job);
    // Jobs that have run, in order. May be empty.
    std::vector<std::unique_ptr<Job>> take_finished();
    // Cancels the job under way, joins the thread and destroys the jobs that wait. Any number of times.
    void stop();

private:
    void work();
    void wait_briefly() const;

    std::function<void()> finished_;
    Thread thread_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::unique_ptr<Job>> waiting_;
    std::vector<std::unique_ptr<Job>> done_;
    CancelFlag current_;  // of the job under way
    bool quit_ = false;
    std::atomic<bool> wanted_{false};  // a job waits or quit_ is set; may be read without the mutex
    Pool pool_;  // used by the worker thread only
};

}  // namespace onebit
