#include "system/thread.h"

#if defined(_WIN32)
#include <process.h>
#include <windows.h>
#endif

namespace onebit {

#if defined(_WIN32)

static_assert(sizeof(void*) == 8, "on 32-bit Windows _beginthreadex wants another calling convention");

bool Thread::start(Entry entry, void* argument) {
    constexpr unsigned kFlags = STACK_SIZE_PARAM_IS_A_RESERVATION;  // committed as it is used
    handle_ = reinterpret_cast<void*>(_beginthreadex(nullptr, static_cast<unsigned>(kStackBytes), entry, argument, kFlags, nullptr));
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

bool Thread::start(Entry entry, void* argument) {
    pthread_attr_t attributes;
    if (pthread_attr_init(&attributes) != 0) return false;
    started_ = pthread_attr_setstacksize(&attributes, kStackBytes) == 0 &&
               pthread_create(&handle_, &attributes, entry, argument) == 0;
    pthread_attr_destroy(&attributes);
    return started_;
}

void Thread::join() {
    if (!started_) return;
    pthread_join(handle_, nullptr);
    started_ = false;
}

#endif

}  // namespace onebit
