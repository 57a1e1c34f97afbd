// Who does the tasks of a loop: all threads of the pool together, or the one thread that is in a task of the pool already.
#pragma once

#include "system/pool.h"

namespace onebit {

class Runner {
public:
    explicit Runner(Pool& pool) : pool_(&pool) {}
    static Runner of_one_thread() { return {}; }

    int threads() const { return pool_ ? pool_->threads() : 1; }

    // As Pool::run.
    template <class Body>
    void run(int tasks, const Body& body) const {
        if (pool_) return pool_->run(tasks, body);
        for (int task = 0; task < tasks; ++task) Pool::call(body, task, 0);
    }

private:
    Runner() = default;
    Pool* pool_ = nullptr;
};

}  // namespace onebit
