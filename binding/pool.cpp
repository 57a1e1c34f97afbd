#include "pool.h"

#include <chrono>
#include <thread>
#include <utility>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#elif defined(_M_ARM64)
#include <intrin.h>
#endif

namespace onebit {

namespace {

constexpr int kTaskBits = 20;
constexpr uint64_t kTaskMask = (uint64_t{1} << kTaskBits) - 1;

constexpr uint64_t claim_word(uint64_t job, uint64_t next, uint64_t tasks) {
    return job << (2 * kTaskBits) | next << kTaskBits | tasks;
}
constexpr uint64_t tasks_of(uint64_t word) { return word & kTaskMask; }
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
#elif defined(_M_ARM64)
    __yield();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

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
    for (int i = 1; i < threads && i < kMaxThreads; ++i) {
        auto worker = std::make_unique<Thread>();
        if (!worker->start([this, i] { work(i); })) break;  // compute with those there are
        workers_.push_back(std::move(worker));
    }
    return this->threads();
}

bool Pool::has_task() const {
    const uint64_t word = claim_.load(std::memory_order_seq_cst);
    return next_of(word) < tasks_of(word);
}

bool Pool::take_task(int thread) {
    uint64_t word = claim_.load(std::memory_order_acquire);
    for (;;) {
        if (next_of(word) >= tasks_of(word)) return false;
        if (claim_.compare_exchange_weak(word, word + (uint64_t{1} << kTaskBits), std::memory_order_acq_rel)) break;
    }
    call_(context_, static_cast<int>(next_of(word)), thread);
    finished_.fetch_add(1, std::memory_order_release);
    return true;
}

void Pool::run_job(int tasks, Call call, const void* context) {
    const auto started = Clock::now();
    if (started < alone_until_) {
        for (int task = 0; task < tasks; ++task) call(context, task, 0);
        return;
    }
    call_ = call;
    context_ = context;
    finished_.store(0, std::memory_order_relaxed);
    const uint64_t job = job_of(claim_.load(std::memory_order_relaxed)) + 1;
    claim_.store(claim_word(job, 0, static_cast<uint64_t>(tasks)), std::memory_order_seq_cst);
    if (parked_.load(std::memory_order_seq_cst) > 0) {
        // Taking the mutex orders us after a thread that has seen no task but does not wait yet.
        { std::lock_guard lock(mutex_); }
        wake_.notify_all();
    }
    while (take_task(0)) {
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

void Pool::work(int thread) {
    use_default_float_environment();
    auto idle_since = Clock::now();
    for (int spins = 1; !quit_.load(std::memory_order_relaxed); ++spins) {
        if (take_task(thread)) {
            while (take_task(thread)) {
            }
            idle_since = Clock::now();
            continue;
        }
        relax();
        if (spins % 64 != 0 || Clock::now() - idle_since < kSpinTime) continue;
        std::unique_lock lock(mutex_);
        parked_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, [this] { return quit_.load() || has_task(); });
        parked_.fetch_sub(1, std::memory_order_seq_cst);
        idle_since = Clock::now();
    }
}

void use_default_float_environment() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_setcsr(0x1f80);
#elif defined(_M_ARM64)
    _WriteStatusReg(ARM64_FPCR, 0);
#elif defined(__aarch64__)
    asm volatile("msr fpcr, %0" ::"r"(uint64_t{0}));
#endif
}

}  // namespace onebit
