// The threads that compute. One job at a time: a job is a number of independent tasks. Each thread begins with its own
// share of them, the same part of equal jobs every time, so that it can know beforehand what it will read and finds in its
// cache what it left there; then it takes what others have not begun. So a thread that the system has put aside holds
// nothing up but the task it is in.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <type_traits>
#include <vector>

#include "system/thread.h"

namespace onebit {

// What a job does. run() may be called by all threads at once, and must not throw.
class Task {
public:
    virtual void run(int task, int thread) = 0;

protected:
    ~Task() = default;
};

// A job whose tasks are body(first + task), or body(first + task, thread).
template <class Body>
class Loop final : public Task {
public:
    explicit Loop(const Body& body, int first = 0) : body_(body), first_(first) {}
    void run(int task, int thread) override {
        if constexpr (std::is_invocable_v<const Body&, int, int>) {
            body_(first_ + task, thread);
        } else {
            body_(first_ + task);
        }
    }

private:
    Body body_;
    int first_;
};

class Pool {
public:
    static constexpr int kMaxTasks = (1 << 20) - 1;
    static constexpr int kMaxThreads = 256;

    static constexpr uint64_t kLastJob = (1 << 24) - 1;  // after which numbers of jobs begin again

    explicit Pool(uint64_t jobs_before = 0);  // a test begins near kLastJob
    ~Pool();                                  // joins
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    // Makes `threads` threads compute (the caller is one of them). Called between jobs only.
    // Fewer may be had than asked for when the system refuses; returns how many there are.
    int resize(int threads);
    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs task i of the job for every i in [0, tasks), tasks <= kMaxTasks, and returns when all are done. thread is in
    // [0, threads()); two calls with the same thread never overlap. Tasks [first_of(tasks, i), first_of(tasks, i + 1)) are
    // thread i's, in this order; others take them from the end.
    void run(int tasks, Task& job);

    // The same for body(task) or body(task, thread).
    template <class Body>
        requires(!std::is_base_of_v<Task, Body>)
    void run(int tasks, const Body& body) {
        Loop<Body> loop(body);
        run(tasks, static_cast<Task&>(loop));
    }

    int first_of(int tasks, int thread) const {
        return static_cast<int>(int64_t{tasks} * thread / threads());
    }

private:
    void wait_for_others(int tasks, std::chrono::steady_clock::time_point started);
    bool take_task(uint64_t job, int share, bool own, int* task);
    bool claim(uint64_t job, int thread, int* share, int* task);
    uint64_t next_number();
    uint64_t whole_share(uint64_t job, int share) const;
    static Thread::Result work(void* member);
    void stop();

    struct Member {
        Pool* pool;
        int number;
        Thread thread;
    };
    std::vector<std::unique_ptr<Member>> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    // The job there is: | job number : 24 | 0 : 20 | tasks : 20 |. What a thread needs to begin lies on the same cache line.
    alignas(64) std::atomic<uint64_t> job_;
    Task* task_ = nullptr;  // read only after a claim has succeeded
    // What is left of a thread's share: | job number : 24 | next task : 20 | end : 20 |. Whoever comes first to a share of a
    // new job sets it up. A claim is a compare-and-swap of the word, so a late thread cannot take a task of a job it has
    // not seen.
    struct alignas(64) Share {
        std::atomic<uint64_t> left{0};
    };
    std::unique_ptr<Share[]> shares_;  // (threads)
    alignas(64) std::atomic<int> finished_{0};
    alignas(64) std::atomic<int> parked_{0};
    std::atomic<bool> quit_{false};
    std::chrono::steady_clock::time_point alone_until_{};  // the caller's own
};

// Round to nearest, subnormals kept, nothing trapped, while it lives: what the promise of equal bytes rests on. A host
// program may have changed these on its own threads. Threads of ours have it for good.
class DefaultFloats {
public:
    DefaultFloats();
    ~DefaultFloats();
    DefaultFloats(const DefaultFloats&) = delete;
    DefaultFloats& operator=(const DefaultFloats&) = delete;

private:
    uint64_t before_ = 0;
};

// Physical cores this process may use: affinity mask and cgroup quota taken into account. At least 1.
int default_threads();

}  // namespace onebit
