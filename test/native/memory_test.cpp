// Memory that cannot be had: the n-th allocation fails, for every n, while a model is loaded, computes a step, samples,
// generates, is forked and factorised. Each time that is an error by its name, nothing is lost, and the next try works.
// ONEBIT_VARIANTS=few: a cache of one piece instead of two, for slow machines.
#include <atomic>
#include <cstdlib>
#include <new>
#include <thread>

#include "check.h"
#include "convert/convert.h"
#include "convert/svid.h"
#include "made_model.h"
#include "probes/random_model.h"
#include "run/generation.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

std::atomic<long> left{-1};  // allocations until one fails; negative: none does
std::atomic<long> live{0}, made{0};
std::atomic<bool> failed{false};

bool fails() {
    ++made;
    if (left.load() < 0 || left.fetch_sub(1) != 0) return false;
    failed = true;
    return true;
}

void* counted(size_t bytes, size_t alignment) {
    if (fails()) return nullptr;
    void* memory = alignment > 16 ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment) : std::malloc(bytes ? bytes : 1);
    if (memory) ++live;
    return memory;
}

void* counted_or_throw(size_t bytes, size_t alignment) {
    if (void* memory = counted(bytes, alignment)) return memory;
    throw std::bad_alloc();
}

void release(void* memory) {
    if (memory) --live;
    std::free(memory);
}

}  // namespace

void* operator new(size_t bytes) { return counted_or_throw(bytes, 0); }
void* operator new[](size_t bytes) { return counted_or_throw(bytes, 0); }
void* operator new(size_t bytes, std::align_val_t a) { return counted_or_throw(bytes, static_cast<size_t>(a)); }
void* operator new[](size_t bytes, std::align_val_t a) { return counted_or_throw(bytes, static_cast<size_t>(a)); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return counted(bytes, 0); }
void* operator new[](size_t bytes, const std::nothrow_t&) noexcept { return counted(bytes, 0); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete[](void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { release(memory); }
void operator delete[](void* memory, size_t, std::align_val_t) noexcept { release(memory); }

#if defined(ONEBIT_WRAPS_PAGES)  // the linker sends the engine's calls here
extern "C" {
void* __real_mmap(void*, size_t, int, int, int, off_t);
int __real_mprotect(void*, size_t, int);
void* __wrap_mmap(void* at, size_t bytes, int protection, int flags, int file, off_t offset) {
    return fails() ? MAP_FAILED : __real_mmap(at, bytes, protection, flags, file, offset);
}
int __wrap_mprotect(void* at, size_t bytes, int protection) { return fails() ? -1 : __real_mprotect(at, bytes, protection); }
}
#endif

using namespace onebit;

namespace {

Config small_config() {
    Config config;
    config.vocab_size = 60;
    config.dim = 128;
    config.hidden_dim = 128;
    config.n_layers = 2;
    config.n_heads = 4;
    config.n_kv_heads = 2;
    config.head_dim = 32;
    config.context_length = 400;
    return config;
}

LinearKind chain() {
    LinearKind kind;
    kind.form = LinearKind::Form::sign;
    kind.rank = 16;
    kind.mid_scale = kind.bias = kind.layernorm = kind.column = true;
    return kind;
}

// Runs `body` with the n-th allocation failing, for every n until none is left to fail. body returns a Status and must be
// repeatable; what it leaves behind must be nothing.
template <class Body>
void every_allocation(const char* what, const Body& body) {
    const auto once = [&](long n) {
        failed = false;
        left = n;
        Status status = caught(body);
        left = -1;
        return status;
    };
    CHECK(once(-1).ok());  // whatever is kept from the first time on is there now
    long n = 0;
    for (;; ++n) {
        const long before = live;
        const Status status = once(n);
        const bool ran_out = failed;
        const bool right = status.ok() || (ran_out && std::strcmp(status.code, "ERR_OUT_OF_MEMORY") == 0);
        if (!CHECK(right)) std::printf("  %s, allocation %ld: %s %s\n", what, n, status.code ? status.code : "", status.message.c_str());
        const long lost = live - before - static_cast<long>(status.message.capacity() > 15);
        if (!CHECK(lost <= 0)) std::printf("  %s, allocation %ld: %ld pieces of memory lost\n", what, n, lost);
        if (!ran_out) break;
        if (n % 16 == 0) CHECK(once(-1).ok());
    }
    CHECK(n > 3);
    std::printf("%s: %ld allocations\n", what, n);
}

void loading(const made::ModelFile& file) {
    Pool pool;
    pool.resize(2);
    every_allocation("loading", [&] {
        std::shared_ptr<Model> model;
        return file.load(*choose_kernels(nullptr, nullptr), Activations::int8, pool, &model);
    });
    every_allocation("a random model", [&] {
        RandomOptions options;
        options.kernels = choose_kernels(nullptr, nullptr);
        std::shared_ptr<Model> model;
        return random_model(file.config, file.contents.kinds, options, pool, &model);
    });
}

// A step of two sessions, with everything that can be asked of one: logits, scores, a choice with penalties.
void steps(const std::shared_ptr<Model>& model) {
    Pool pool;
    pool.resize(2);
    const int tokens[] = {20, check::few_variants() ? 30 : 270};
    every_allocation("a step", [&]() -> Status {
        Engine engine;
        engine.model = model;
        std::unique_ptr<Session> sessions[2];
        SamplingOptions options;
        options.temperature = 0.8;
        options.top_p = 0.5;
        options.first = 2;
        options.repeat_last_n = 8;
        options.changes.repeat_penalty = 1.2f;
        Sampler sampler(options, {1, 2, 3});
        StepItem items[2];
        StepRequest request;
        for (int i = 0; i < 2; ++i) {
            if (Status status = Session::create(model, 300, DType::f16, &sessions[i]); !status.ok()) return status;
            items[i].session = sessions[i].get();
            items[i].tokens.assign(static_cast<size_t>(tokens[i]), 7);
            request.items.push_back(&items[i]);
        }
        items[0].logits = WantedLogits::all;
        items[0].wants_scores = true;
        items[0].score.top = 3;
        items[1].sampler = &sampler;
        if (Status status = run_step(engine, pool, request); !status.ok()) {
            // The sessions say how far they came, and go on from there.
            for (StepItem& item : items) CHECK(item.session->length() == item.processed || item.processed == 0);
            return status;
        }
        CHECK(items[0].rows.size() == 20 * 60 && items[1].all_processed());
        if (!items[1].sampled.ok()) return items[1].sampled;
        std::unique_ptr<Session> fork;
        if (Status status = Session::create(model, 300, DType::f16, &fork); !status.ok()) return status;
        return fork->copy_from(*sessions[1], tokens[1] - 10);
    });
}

class Told final : public Generation {
public:
    std::atomic<int>* told = nullptr;

protected:
    void tell(std::vector<Made> made_tokens) override { *told += static_cast<int>(std::vector<Made>(made_tokens).size()); }
};

void generations(const std::shared_ptr<Model>& model) {
    every_allocation("a generation", [&]() -> Status {
        std::atomic<int> news{0}, told{0};
        std::unique_ptr<Session> session;
        if (Status status = Session::create(model, 100, DType::f16, &session); !status.ok()) return status;
        Sampler sampler(SamplingOptions{}, {});
        Progress progress;
        progress.taken = 1000;
        Worker worker([&] { ++news; });
        auto job = std::make_unique<Told>();
        job->engine = std::make_shared<Engine>();
        job->engine->model = model;
        job->item.session = session.get();
        job->item.tokens = {1, 2, 3};
        job->item.sampler = &sampler;
        job->progress = &progress;
        job->most = 20;
        job->told = &told;
        if (Status status = worker.post(std::move(job)); !status.ok()) return status;
        while (news == 0) std::this_thread::yield();
        const auto finished = worker.take_finished();
        Status status = std::move(finished[0]->status);
        CHECK(!status.ok() || told == 20);
        return status;
    });
}

void factorising() {
    constexpr int kRows = 24, kCols = 32;
    made::Random random{5};
    std::vector<float> w(kRows * kCols), g(kCols), h(kRows);
    for (float& x : w) x = random.uniform(-1, 1);
    Pool pool;
    pool.resize(2);
    every_allocation("svid", [&] {
        SvidResult found;
        return svid(w.data(), kRows, kCols, {}, pool, g.data(), h.data(), &found);
    });
}

}  // namespace

int main() {
    const made::ModelFile file(small_config(), made::kinds_of(small_config(), chain(), LinearKind{}), 3);
    loading(file);
    Pool pool;
    std::shared_ptr<Model> model;
    if (CHECK(file.load(*choose_kernels(nullptr, nullptr), Activations::int8, pool, &model).ok())) {
        steps(model);
        generations(model);
    }
    factorising();
#if !defined(ONEBIT_WRAPS_PAGES)
    check::skip("pages that cannot be had", "only the linker of Linux can take the engine's place");
#endif
    return check::summary();
}
