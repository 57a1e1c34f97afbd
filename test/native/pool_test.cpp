// The pool: every task once, each thread its own share first, whatever the number of the job.
#include "system/pool.h"

#include <atomic>
#include <vector>

#include "check.h"

using namespace onebit;

namespace {

// What one job did: how often each task ran, and which tasks each thread did, in its order.
struct Record {
    std::vector<std::atomic<int>> runs;
    std::vector<std::vector<int>> by_thread;
    Record(int tasks, int threads) : runs(static_cast<size_t>(tasks)), by_thread(static_cast<size_t>(threads)) {}
};

bool each_once(const Record& record) {
    for (const auto& runs : record.runs) {
        if (runs.load() != 1) return false;
    }
    return true;
}

// A thread's own tasks come first and in order.
bool own_first(const Record& record, const Pool& pool) {
    const int tasks = static_cast<int>(record.runs.size());
    for (int thread = 0; thread < pool.threads(); ++thread) {
        int expected = pool.first_of(tasks, thread);
        bool helping = false;
        for (const int task : record.by_thread[static_cast<size_t>(thread)]) {
            const bool own = task >= pool.first_of(tasks, thread) && task < pool.first_of(tasks, thread + 1);
            if (own && (helping || task != expected++)) return false;
            helping = helping || !own;
        }
    }
    return true;
}

void run_one(Pool& pool, int tasks) {
    Record record(tasks, pool.threads());
    pool.run(tasks, [&](int task, int thread) {
        record.runs[static_cast<size_t>(task)].fetch_add(1);
        record.by_thread[static_cast<size_t>(thread)].push_back(task);
    });
    CHECK(each_once(record));
    CHECK(own_first(record, pool));
}

void shares_cover_all_tasks() {
    Pool pool;
    pool.resize(3);
    for (const int tasks : {0, 1, 2, 3, 4, 100, Pool::kMaxTasks}) {
        CHECK(pool.first_of(tasks, 0) == 0 && pool.first_of(tasks, pool.threads()) == tasks);
    }
}

}  // namespace

int main() {
    shares_cover_all_tasks();
    for (const int threads : {1, 2, 3, 5}) {
        for (const uint64_t jobs_before : {uint64_t{0}, Pool::kLastJob - 150}) {
            Pool pool(jobs_before);
            pool.resize(threads);
            for (int round = 0; round < 8; ++round) {
                for (int tasks = 1; tasks <= 40; ++tasks) run_one(pool, tasks);
            }
        }
    }
    return check::summary();
}
