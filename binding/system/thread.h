// A thread that the system may refuse, with a stack of a size that we chose.
#pragma once

#include <cstddef>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace onebit {

class Thread {
public:
#if defined(_WIN32)
    using Result = unsigned;
#else
    using Result = void*;
#endif
    // What a thread runs; it returns Result{}. Nothing may be thrown out of it.
    using Entry = Result (*)(void* argument);

    // Kernels keep tens of KiB of lanes and tables on the stack; systems give a thread 128 KiB (musl) to 8 MiB (glibc).
    static constexpr size_t kStackBytes = size_t{1} << 20;

    Thread() = default;
    ~Thread() { join(); }
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    // False when the system has no more threads for us, and nothing has happened then. Not while one is running.
    bool start(Entry entry, void* argument);
    bool started() const { return started_; }
    // Waits for its end; at once when none was started.
    void join();

private:
    bool started_ = false;
#if defined(_WIN32)
    void* handle_ = nullptr;
#else
    pthread_t handle_{};
#endif
};

}  // namespace onebit
