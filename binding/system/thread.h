// A thread that the system may refuse: std::thread throws then, and the engine is built without exceptions.
#pragma once

#include <functional>

#if !defined(_WIN32)
#include <pthread.h>
#endif

namespace onebit {

class Thread {
public:
    Thread() = default;
    ~Thread() { join(); }
    Thread(const Thread&) = delete;
    Thread& operator=(const Thread&) = delete;

    // False when the system has no more threads for us, and nothing has happened then. Not while one is running.
    bool start(std::function<void()> body);
    bool started() const { return started_; }
    // Waits for its end; at once when none was started.
    void join();

private:
    std::function<void()> body_;
    bool started_ = false;
#if defined(_WIN32)
    void* handle_ = nullptr;
#else
    pthread_t handle_{};
#endif
};

}  // namespace onebit
