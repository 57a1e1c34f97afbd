// loadModel(options): the options, and the job that loads.
#include <algorithm>
#include <chrono>
#include <limits>

#include "napi/fields.h"
#include "napi/objects.h"

namespace onebit {

namespace {

constexpr size_t kMaxPathBytes = 1 << 16;
constexpr auto kProgressInterval = std::chrono::milliseconds(50);

}  // namespace

Napi::Value make_model(Napi::Env env, std::shared_ptr<Engine> engine, uint64_t memory_limit) {
    auto state = std::make_shared<ModelState>();
    state->engine = std::move(engine);
    state->memory_limit = memory_limit;
    tell_collector(env, static_cast<int64_t>(state->used_bytes()), &state->told_bytes);
    return make_object(env, Addon::of(env).model_class, std::move(state));
}

namespace {

class LoadJob final : public Job, public Settling {
public:
    explicit LoadJob(Napi::Env env) : Settling(env), addon_(Addon::of(env)) {}
    Settling* settling() override { return this; }

    void run(Pool& pool) override {
        options.cancel = cancel.get();
        if (!on_progress.IsEmpty()) options.progress = [this](uint64_t done) { report(done); };
        engine_->threads = pool.resize(threads > 0 ? threads : default_threads());
        status = load_model(config, contents, options, pool, &engine_->model);
    }

    Napi::Value result(Napi::Env env) override { return make_model(env, std::move(engine_), memory_limit); }

    Config config;
    Contents contents;
    LoadOptions options;
    int32_t threads = 0;
    uint64_t memory_limit = 0;
    Napi::FunctionReference on_progress;

private:
    // On computing threads, one at a time. What is posted runs before the job is destroyed (Addon::drain).
    void report(uint64_t done) {
        const auto now = std::chrono::steady_clock::now();
        if (done < options.file_bytes && now - reported_ < kProgressInterval) return;
        reported_ = now;
        addon_.post_call([this, done](Napi::Env env) {
            const Napi::HandleScope scope(env);
            on_progress.Call({Napi::Number::New(env, static_cast<double>(done))});
        });
    }

    Addon& addon_;
    std::shared_ptr<Engine> engine_ = std::make_shared<Engine>();
    std::chrono::steady_clock::time_point reported_;
};

bool read_load_options(Napi::Env env, Napi::Value value, LoadJob& job) {
    Fields fields(env, value, "options");
    int32_t activations = 0;
    std::string isa;
    fields.text("path", kMaxPathBytes, &job.options.path);
    fields.integer("file_bytes", 1, kMaxSafeInteger, &job.options.file_bytes);
    fields.integer("activations", 0, 2, &activations);
    fields.integer("threads", 0, Pool::kMaxThreads, &job.threads);
    fields.integer("memory_limit", 0, kMaxSafeInteger, &job.memory_limit);
    fields.text("isa", 256, &isa);
    if (!fields.ok()) return false;
    const Napi::Value progress = fields.get("onProgress");
    if (progress.IsFunction()) job.on_progress = Napi::Persistent(progress.As<Napi::Function>());
    job.cancel = read_cancel(env, value.As<Napi::Object>());
    if (!job.cancel || !read_config(env, fields.get("config"), &job.config)) return false;
    if (!read_kinds(env, fields.get("kinds"), &job.contents.kinds)) return false;
    if (!read_tensors(env, fields.get("tensors"), &job.contents.tensors)) return false;
    job.options.activations = static_cast<Activations>(activations);
    const char* why = nullptr;
    job.options.kernels = choose_kernels(isa.c_str(), &why);
    Status status = job.options.kernels ? check_config(job.config) : error("ERR_ISA", why ? why : "");
    if (status.ok() && job.options.path.find('\0') != std::string::npos) {
        status = error("ERR_READ", "The path contains a zero character.");
    }
    if (!status.ok()) throw_status(env, status);
    return status.ok();
}

}  // namespace

Napi::Value load_model_call(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto job = std::make_unique<LoadJob>(env);
    if (env.IsExceptionPending() || !read_load_options(env, call[0], *job)) return {};
    return Addon::of(env).post(env, std::move(job));
}

}  // namespace onebit
