#include "system/thread.h"

#include <utility>

#if defined(_WIN32)
#include <process.h>
#include <windows.h>
#endif

namespace onebit {

#if defined(_WIN32)

bool Thread::start(std::function<void()> body) {
    body_ = std::move(body);
    const auto run = [](void* self) -> unsigned {
        static_cast<Thread*>(self)->body_();
        return 0;
    };
    handle_ = reinterpret_cast<void*>(_beginthreadex(nullptr, 0, run, this, 0, nullptr));
    started_ = handle_ != nullptr;
    return started_;
}

void Thread::join() {
    if (!started_) return;
    WaitForSingleObject(handle_, INFINITE);
    CloseHandle(handle_);
    started_ = false;
}

#else

bool Thread::start(std::function<void()> body) {
    body_ = std::move(body);
    const auto run = [](void* self) -> void* {
        static_cast<Thread*>(self)->body_();
        return nullptr;
    };
    started_ = pthread_create(&handle_, nullptr, run, this) == 0;
    return started_;
}

void Thread::join() {
    if (!started_) return;
    pthread_join(handle_, nullptr);
    started_ = false;
}

#endif

}  // namespace onebit
