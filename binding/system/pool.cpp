#include "system/pool.h"

#include <chrono>
#include <thread>
#include <utility>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(_M_ARM64) && !defined(__aarch64__)  // MinGW defines both, and has GCC's way
#include <intrin.h>
#endif

namespace onebit {

namespace {

constexpr int kTaskBits = 20;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;

constexpr uint64_t share_word(uint64_t job, uint64_t next, uint64_t end) {
    return job << (2 * kTaskBits) | next << kTaskBits | end;
}
constexpr uint64_t end_of(uint64_t word) { return word & kTaskMask; }
constexpr uint64_t next_of(uint64_t word) { return word >> kTaskBits & kTaskMask; }
constexpr uint64_t job_of(uint64_t word) { return word >> (2 * kTaskBits); }

// Long enough to bridge the serial parts of a token and the trip through JavaScript between two tokens, short
// enough that an idle model costs no processor time.
constexpr auto kSpinTime = std::chrono::microseconds(200);

using Clock = std::chrono::steady_clock;

// When another program keeps one of our cores busy, the system puts our thread there aside for a few milliseconds at a
// time, and if it holds a task everyone waits for it. Having waited like that, the caller computes alone for a few times
// as long: measured with one of two cores taken, decode keeps 60 to 70 % of its quiet speed instead of 45 %.
constexpr auto kLongWait = std::chrono::microseconds(500);
constexpr int kAloneWaits = 8;

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#elif defined(_M_ARM64)
    __yield();
#endif
}

}  // namespace

Pool::Pool(uint64_t jobs_before) : job_(share_word(jobs_before, 0, 0)) {}

Pool::~Pool() { stop(); }

void Pool::stop() {
    {
        std::lock_guard lock(mutex_);
        quit_.store(true);
    }
    wake_.notify_all();
    workers_.clear();  // joins
    quit_.store(false);
}

int Pool::resize(int threads) {
    if (threads == this->threads()) return threads;
    stop();
    workers_.reserve(static_cast<size_t>(kMaxThreads));
    shares_ = std::make_unique<Share[]>(static_cast<size_t>(kMaxThreads));
    for (int i = 1; i < threads && i < kMaxThreads; ++i) {
        std::unique_ptr<Member> worker(new Member{this, i, {}});
        if (!worker->thread.start(work, worker.get())) break;  // compute with those there are
        workers_.push_back(std::move(worker));
    }
    return this->threads();
}

uint64_t Pool::whole_share(uint64_t job, int share) const {
    const int tasks = static_cast<int>(end_of(job));
    const int first = first_of(tasks, share), end = first_of(tasks, share + 1);
    return share_word(job_of(job), static_cast<uint64_t>(first), static_cast<uint64_t>(end));
}

// Claims a task of a share: its owner the next one, others the last one.
bool Pool::take_task(uint64_t job, int share, bool own, int* task) {
    std::atomic<uint64_t>& left = shares_[static_cast<size_t>(share)].left;
    uint64_t word = left.load(std::memory_order_acquire);
    for (;;) {
        uint64_t now = word;
        if (job_of(word) != job_of(job)) {
            if (job_.load(std::memory_order_acquire) != job) return false;  // we are late, and this share is ahead of us
            now = whole_share(job, share);
        }
        if (next_of(now) >= end_of(now)) return false;
        const uint64_t rest = own ? now + (uint64_t{1} << kTaskBits) : now - 1;
        if (!left.compare_exchange_weak(word, rest, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
        *task = static_cast<int>(own ? next_of(now) : end_of(rest));
        return true;
    }
}

// Claims a task for a thread: of its own share, or, when that is empty, of the next that is not. share: 0 at first.
bool Pool::claim(uint64_t job, int thread, int* share, int* task) {
    const int n = threads();
    for (; *share < n; ++*share) {
        if (take_task(job, (thread + *share) % n, *share == 0, task)) return true;
    }
    return false;
}

// Numbers come round again. Shares that no job has touched since would seem to be of a new one, so then all are made those
// of no job; a late thread learns first that its job is not the one there is.
uint64_t Pool::next_number() {
    const uint64_t number = job_of(job_.load(std::memory_order_relaxed)) + 1;
    if (number <= kLastJob) return number;
    job_.store(0, std::memory_order_release);
    for (int i = 0; i < threads(); ++i) shares_[static_cast<size_t>(i)].left.store(0, std::memory_order_release);
    return 1;
}

void Pool::run(int tasks, Task& job_task) {
    const bool alone = tasks <= 1 || workers_.empty();
    const auto started = alone ? Clock::time_point{} : Clock::now();
    if (alone || started < alone_until_) {
        for (int task = 0; task < tasks; ++task) job_task.run(task, 0);
        return;
    }
    task_ = &job_task;
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t job = share_word(next_number(), 0, static_cast<uint64_t>(tasks));
    job_.store(job, std::memory_order_seq_cst);
    if (parked_.load(std::memory_order_seq_cst) > 0) {
        // Taking the mutex orders us after a thread that has seen no task but does not wait yet.
        { std::lock_guard lock(mutex_); }
        wake_.notify_all();
    }
    for (int share = 0, task; claim(job, 0, &share, &task);) {
        job_task.run(task, 0);
        finished_.fetch_add(1, std::memory_order_release);
    }
    wait_for_others(tasks, started);
}

// Others may still be in their last task. Give the core away after a while: they may need it to finish.
void Pool::wait_for_others(int tasks, Clock::time_point started) {
    for (int spins = 0; spins < 4096; ++spins) {
        if (finished_.load(std::memory_order_acquire) == tasks) return;
        relax();
    }
    const auto waiting_since = Clock::now();
    while (finished_.load(std::memory_order_acquire) != tasks) std::this_thread::yield();
    const auto now = Clock::now();
    const auto waited = now - waiting_since;
    // A wait that is short beside the job is only the last task's uneven end.
    if (waited > kLongWait && waited > (waiting_since - started) / 2) alone_until_ = now + kAloneWaits * waited;
}

Thread::Result Pool::work(void* member) {
    const int thread = static_cast<Member*>(member)->number;
    Pool& self = *static_cast<Member*>(member)->pool;
    const DefaultFloats floats;
    auto idle_since = Clock::now();
    uint64_t seen = self.job_.load(std::memory_order_acquire);
    const auto has_job = [&] { return self.job_.load(std::memory_order_seq_cst) != seen; };
    for (int spins = 1; !self.quit_.load(std::memory_order_relaxed); ++spins) {
        if (has_job()) {
            seen = self.job_.load(std::memory_order_acquire);
            for (int share = 0, task; self.claim(seen, thread, &share, &task);) {
                self.task_->run(task, thread);
                self.finished_.fetch_add(1, std::memory_order_release);
            }
            idle_since = Clock::now();
            continue;
        }
        relax();
        if (spins % 64 != 0 || Clock::now() - idle_since < kSpinTime) continue;
        std::unique_lock lock(self.mutex_);
        self.parked_.fetch_add(1, std::memory_order_seq_cst);
        self.wake_.wait(lock, [&] { return self.quit_.load() || has_job(); });
        self.parked_.fetch_sub(1, std::memory_order_seq_cst);
        idle_since = Clock::now();
    }
    return Thread::Result{};
}

#if defined(__x86_64__) || defined(_M_X64)

DefaultFloats::DefaultFloats() : before_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
DefaultFloats::~DefaultFloats() { _mm_setcsr(static_cast<unsigned>(before_)); }

#elif defined(__aarch64__)

DefaultFloats::DefaultFloats() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" ::"r"(uint64_t{0}));
}
DefaultFloats::~DefaultFloats() { asm volatile("msr fpcr, %0" ::"r"(before_)); }

#elif defined(_M_ARM64)

DefaultFloats::DefaultFloats() : before_(static_cast<uint64_t>(_ReadStatusReg(ARM64_FPCR))) { _WriteStatusReg(ARM64_FPCR, 0); }
DefaultFloats::~DefaultFloats() { _WriteStatusReg(ARM64_FPCR, static_cast<int64_t>(before_)); }

#endif

}  // namespace onebit
