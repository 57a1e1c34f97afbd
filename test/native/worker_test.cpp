// The worker thread: order, cancellation, and being stopped at any moment.
#include "system/worker.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <new>
#include <string>
#include <thread>

#include "check.h"
#include "no_memory.h"

using namespace onebit;
using namespace std::chrono_literals;

namespace {

// Sums on the pool, over and over, until it has done so `rounds` times or is cancelled.
class SumJob : public Job {
public:
    SumJob(int number, int rounds, std::atomic<int>* alive) : number(number), rounds_(rounds), alive_(alive) { ++*alive_; }
    ~SumJob() override { --*alive_; }

    void run(Pool& pool) override {
        pool.resize(2);
        while (rounds_-- > 0 && !cancel->load()) {
            std::atomic<int> sum{0};
            pool.run(16, [&](int task) { sum += task; });
            right = right && sum == 120;
        }
        cancelled = cancel->load();
    }

    int number;
    bool right = true, cancelled = false;

private:
    int rounds_;
    std::atomic<int>* alive_;
};

void jobs_end_in_order() {
    std::atomic<int> alive{0}, news{0};
    Worker worker([&] { ++news; });
    const int jobs = 200;
    for (int i = 0; i < jobs; ++i) CHECK(worker.post(std::make_unique<SumJob>(i, 3, &alive)).ok());
    int next = 0;
    while (next < jobs) {
        for (const auto& job : worker.take_finished()) {
            const auto& done = static_cast<SumJob&>(*job);
            CHECK(done.number == next++ && done.right && !done.cancelled);
        }
        std::this_thread::yield();
    }
    CHECK(worker.take_finished().empty());
    worker.stop();
    CHECK(news == jobs);
    CHECK(alive == 0);
}

void a_cancelled_job_ends_early() {
    std::atomic<int> alive{0};
    std::atomic<bool> news{false};
    Worker worker([&] { news = true; });
    auto job = std::make_unique<SumJob>(0, 1 << 30, &alive);
    const CancelFlag cancel = job->cancel;
    CHECK(worker.post(std::move(job)).ok());
    std::this_thread::sleep_for(5ms);
    CHECK(!news);
    cancel->store(true);
    while (!news) std::this_thread::yield();
    const auto finished = worker.take_finished();
    CHECK(finished.size() == 1 && static_cast<SumJob&>(*finished[0]).cancelled);
}

// Runs `turns` times, each time from the end of the line.
class TurnsJob : public Job {
public:
    TurnsJob(char name, int turns, std::string* log) : name_(name), turns_(turns), log_(log) {}
    void run(Pool&) override { *log_ += name_; }
    bool again(bool others) override {
        if (!others) *log_ += '.';
        return --turns_ > 0;
    }

private:
    char name_;
    int turns_;
    std::string* log_;  // written by the worker only
};

// Holds the worker until it is cancelled, so that others line up behind it.
class GateJob : public Job {
public:
    void run(Pool&) override {
        while (!cancel->load()) std::this_thread::yield();
    }
};

void jobs_that_run_again_take_turns() {
    std::atomic<int> news{0};
    std::string log;
    Worker worker([&] { ++news; });
    auto gate = std::make_unique<GateJob>();
    const CancelFlag open = gate->cancel;
    CHECK(worker.post(std::move(gate)).ok());
    CHECK(worker.post(std::make_unique<TurnsJob>('a', 3, &log)).ok());
    CHECK(worker.post(std::make_unique<TurnsJob>('b', 2, &log)).ok());
    CHECK(worker.post(std::make_unique<TurnsJob>('c', 1, &log)).ok());
    open->store(true);
    while (news < 4) std::this_thread::yield();
    CHECK(worker.take_finished().size() == 4);
    CHECK(log == "abcaba.");
}

class EndlessJob : public Job {
public:
    explicit EndlessJob(std::atomic<int>* turns) : turns_(turns) {}
    void run(Pool&) override { ++*turns_; }
    bool again(bool) override { return true; }

private:
    std::atomic<int>* turns_;
};

void a_job_that_runs_again_ends_with_the_worker() {
    std::atomic<int> turns{0};
    Worker worker([] {});
    CHECK(worker.post(std::make_unique<EndlessJob>(&turns)).ok());
    while (turns < 3) std::this_thread::yield();
    worker.stop();
    CHECK(worker.take_finished().empty());
}

// As when an environment goes away: in the middle of a job, with others waiting and some that nobody has taken.
void stops_at_any_moment() {
    std::atomic<int> alive{0};
    for (int i = 0; i < 100; ++i) {
        Worker worker([] {});
        CHECK(worker.post(std::make_unique<SumJob>(0, 2, &alive)).ok());
        CHECK(worker.post(std::make_unique<SumJob>(1, 1 << 30, &alive)).ok());
        CHECK(worker.post(std::make_unique<SumJob>(2, 1, &alive)).ok());
        std::this_thread::sleep_for(std::chrono::microseconds(37 * (i % 20)));
        worker.stop();
        CHECK(alive == 0);
        CHECK(std::strcmp(worker.post(std::make_unique<SumJob>(3, 1, &alive)).code, "ERR_CLOSED") == 0);
        worker.stop();
        CHECK(alive == 0 && worker.take_finished().empty());
    }
    Worker never_used([] {});
    never_used.stop();
}

// A job that finds no memory fails by itself; the next one runs.
class GreedyJob : public Job {
public:
    void run(Pool&) override { throw std::bad_alloc(); }  // as the standard library does
};

void a_job_without_memory_is_an_error() {
    std::atomic<int> alive{0}, news{0};
    Worker worker([&] { ++news; });
    CHECK(worker.post(std::make_unique<GreedyJob>()).ok());
    CHECK(worker.post(std::make_unique<SumJob>(1, 2, &alive)).ok());
    while (news < 2) std::this_thread::yield();
    const auto finished = worker.take_finished();
    CHECK(finished.size() == 2 && !finished[0]->status.ok() && finished[1]->status.ok());
    CHECK(std::strcmp(finished[0]->status.code, "ERR_OUT_OF_MEMORY") == 0);
}

#if defined(ONEBIT_CAN_REFUSE_MEMORY)
// No addresses for another stack: as a system at its limit, which refuses every thread. Must come before any thread of this
// program has ended, for the C library keeps the stacks of those.
void a_system_without_threads_is_an_error() {
    if (!NoMemory::possible(RLIMIT_AS)) return check::skip("a system without threads", "this one ignores limits of memory");
    std::atomic<int> alive{0};
    std::atomic<bool> news{false};
    Worker worker([&] { news = true; });
    Pool pool;
    auto first = std::make_unique<SumJob>(0, 1, &alive), second = std::make_unique<SumJob>(1, 1, &alive);
    Status status;
    int threads = 0;
    {
        const NoMemory none(RLIMIT_AS);
        status = worker.post(std::move(first));
        threads = pool.resize(4);
    }
    CHECK(!status.ok() && std::strcmp(status.code, "ERR_NO_THREAD") == 0);
    CHECK(alive == 1 && worker.take_finished().empty());
    CHECK(threads == 1);
    std::atomic<int> sum{0};
    pool.run(16, [&](int task) { sum += task; });
    CHECK(sum == 120);

    CHECK(pool.resize(4) == 4);
    CHECK(worker.post(std::move(second)).ok());
    while (!news) std::this_thread::yield();
    const auto finished = worker.take_finished();
    CHECK(finished.size() == 1 && static_cast<SumJob&>(*finished[0]).right);
}
#endif

#if defined(__linux__)
// Kernels use more stack than some systems give a thread.
void threads_have_stacks_of_our_size() {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, size_t{128} << 10);
#if defined(__GLIBC__) && defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 18)
    CHECK(pthread_setattr_default_np(&attributes) == 0);  // as musl has it
#endif
#endif
    std::atomic<size_t> bytes{0};
    Thread thread;
    CHECK(thread.start(
        [](void* out) -> Thread::Result {
            pthread_attr_t own;
            size_t size = 0;
            pthread_getattr_np(pthread_self(), &own);
            pthread_attr_getstacksize(&own, &size);
            pthread_attr_destroy(&own);
            *static_cast<std::atomic<size_t>*>(out) = size;
            return Thread::Result{};
        },
        &bytes));
    thread.join();
    CHECK(bytes >= Thread::kStackBytes - 65536);
    pthread_attr_destroy(&attributes);
}
#endif

}  // namespace

int main() {
#if defined(ONEBIT_CAN_REFUSE_MEMORY)
    a_system_without_threads_is_an_error();
#else
    check::skip("a system without threads", "only Linux without sanitizers can refuse one here");
#endif
#if defined(__linux__)
    threads_have_stacks_of_our_size();
#else
    check::skip("the size of stacks", "only Linux tells it");
#endif
    jobs_end_in_order();
    a_cancelled_job_ends_early();
    jobs_that_run_again_take_turns();
    a_job_that_runs_again_ends_with_the_worker();
    a_job_without_memory_is_an_error();
    stops_at_any_moment();
    return check::summary();
}
