// The thread of one Node environment that runs everything long: loading, steps, conversions. Jobs run in the order
// they were posted, one at a time, and each may use the Pool; one that wants to run again goes to the end of the line.
// Knows nothing of Node.
#pragma once

#include <atomic>
#include <condition_variable>
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

class Settling;  // of whoever waits for a job's end: napi/addon.h

class Job {
public:
    virtual ~Job() = default;
    // On the worker thread. Should look at *cancel at least every 20 ms and return early when it is set. Where memory is
    // refused (thrown), the worker sets the status.
    virtual void run(Pool& pool) = 0;
    // After run(): true to be run again once those that wait had their turn; others: whether any do. Nothing can be posted
    // between the answer and the new place in the line, so what was posted before sees it end, or waits behind it. Must not
    // throw.
    virtual bool again(bool others) { return static_cast<void>(others), false; }

    virtual Settling* settling() { return nullptr; }

    CancelFlag cancel = std::make_shared<std::atomic<bool>>(false);
    Status status;  // of the last run()
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
    static Thread::Result work(void* worker);
    void put_back(std::unique_lock<std::mutex>& lock, std::unique_ptr<Job> job);
    void wait_briefly() const;

    std::function<void()> finished_;
    Thread thread_;
    std::mutex mutex_;
    std::condition_variable wake_;
    // The worker moves a job from one to the other without memory: post() has seen to the room.
    std::vector<std::unique_ptr<Job>> waiting_, done_;
    size_t unfinished_ = 0;
    CancelFlag current_;  // of the job under way
    bool quit_ = false;
    std::atomic<bool> wanted_{false};  // a job waits or quit_ is set; may be read without the mutex
    Pool pool_;  // used by the worker thread only
};

}  // namespace onebit
