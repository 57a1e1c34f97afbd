#include "napi/addon.h"

#include <utility>

#include "kernels/kernels.h"
#include "kernels/tiles.h"
#include "system/pool.h"

namespace onebit {

namespace {

const char* state_name(IsaState state) {
    switch (state) {
        case IsaState::usable: return "usable";
        case IsaState::not_present: return "not_present";
        case IsaState::not_built: return "not_built";
    }
    return "";
}

std::string compiler() {
#if defined(__clang__)
    const auto part = [](int number) { return std::to_string(number); };
    return "clang " + part(__clang_major__) + "." + part(__clang_minor__) + "." + part(__clang_patchlevel__);
#elif defined(__GNUC__)
    return "gcc " __VERSION__;
#elif defined(_MSC_FULL_VER)
    return "msvc " + std::to_string(_MSC_FULL_VER);
#else
    return "unknown";
#endif
}

// info(isa?): `isa` is ONEBIT_ISA's value. It is an argument because a worker thread has an environment of its own.
Napi::Value info(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    std::string wanted;
    if (call.Length() > 0 && !call[0].IsUndefined() && !read_string(env, call[0], "isa", 256, &wanted)) return {};
    const char* why = nullptr;
    const KernelSet* chosen = choose_kernels(wanted.c_str(), &why);
    int count = 0;
    const IsaEntry* table = isa_table(&count);  // after the choice, which the system may refuse
    Napi::Array isas = Napi::Array::New(env, static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) {
        Napi::Object entry = Napi::Object::New(env);
        entry.Set("name", table[i].name);
        entry.Set("state", state_name(table[i].state));
        if (table[i].runs) entry.Set("runs", table[i].runs);
        isas.Set(static_cast<uint32_t>(i), entry);
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("isas", isas);
    result.Set("chosen", chosen ? Napi::Value(Napi::String::New(env, chosen->name)) : env.Null());
    result.Set("why", !chosen && why ? Napi::Value(Napi::String::New(env, why)) : env.Null());
    result.Set("default_threads", default_threads());
    result.Set("compiler", compiler());
    return result;
}

// checkTiles(): whether they multiply as plain arithmetic does; null where there are none.
Napi::Value check_tiles_call(const Napi::CallbackInfo& call) {
    const TileCheck found = check_tiles();
    if (found == TileCheck::absent) return call.Env().Null();
    return Napi::Boolean::New(call.Env(), found == TileCheck::right);
}

// crc32c(bytes, crc): continues from crc. Pieces of a few megabytes: it runs here and now.
Napi::Value crc32c(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    int64_t crc = 0;
    if (!read_int(env, call[1], "crc", 0, UINT32_MAX, &crc)) return {};
    napi_typedarray_type type = napi_int8_array;
    size_t length = 0;
    void* data = nullptr;
    if (!call[0].IsTypedArray() ||
        napi_get_typedarray_info(env, call[0], &type, &length, &data, nullptr, nullptr) != napi_ok ||
        type != napi_uint8_array) {
        throw_type(env, "bytes must be a Uint8Array.");
        return {};
    }
    const auto start = static_cast<uint32_t>(crc);
    return Napi::Number::New(env, row_kernels().crc32c(start, static_cast<const uint8_t*>(data), length));
}

Napi::Value use_errors(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    if (!call[0].IsFunction()) {
        throw_type(env, "useErrors needs a function (code, message) => Error.");
        return {};
    }
    Addon::of(env).error_factory = Napi::Persistent(call[0].As<Napi::Function>());
    return env.Undefined();
}

class IdleJob final : public Job, public Settling {
public:
    using Settling::Settling;
    Settling* settling() override { return this; }
    void run(Pool&) override {}
    Napi::Value result(Napi::Env env) override { return env.Undefined(); }
};

Napi::Value idle(const Napi::CallbackInfo& call) {
    return Addon::of(call.Env()).post(call.Env(), std::make_unique<IdleJob>(call.Env()));
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
    env.SetInstanceData(new Addon(env));
    export_call<info>(exports, "info");
    export_call<use_errors>(exports, "useErrors");
    export_call<check_tiles_call>(exports, "checkTiles");
    export_call<crc32c>(exports, "crc32c");
    export_call<idle>(exports, "idle");
    register_model(env, exports);
    register_convert(exports);
    register_bench(exports);
    return exports;
}

}  // namespace

Addon::Addon(Napi::Env env) {
    napi_create_threadsafe_function(env, nullptr, nullptr, Napi::String::New(env, "onebit"), 0, 1, nullptr, nullptr,
                                    this, on_wake, &wake_);
    if (wake_) napi_unref_threadsafe_function(env, wake_);  // an idle addon does not keep the process alive
    worker_ = std::make_unique<Worker>([this] { wake(); });
    // Hooks run in reverse order, so this one joins the worker before Node takes wake_ away.
    napi_add_env_cleanup_hook(env, [](void* self) { static_cast<Addon*>(self)->shut_down(); }, this);
}

Addon::~Addon() { shut_down(); }

void Addon::shut_down() {
    if (worker_) worker_->stop();
    if (wake_) napi_release_threadsafe_function(std::exchange(wake_, nullptr), napi_tsfn_abort);
}

void Addon::wake() {
    if (wake_) napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

Napi::Value Addon::post(Napi::Env env, std::unique_ptr<Job> job) {
    const Napi::Promise::Deferred deferred = job->settling()->deferred;
    if (env.IsExceptionPending()) return {};  // the environment is being torn down
    const Status status = wake_ ? worker_->post(std::move(job)) : error("ERR_CLOSED", "Node had no thread-safe function for the engine.");
    if (!status.ok()) {
        deferred.Reject(make_error(env, status));
    } else if (pending_++ == 0) {
        napi_ref_threadsafe_function(env, wake_);
    }
    return deferred.Promise();
}

void Addon::post_call(std::function<void(Napi::Env)> call) {
    {
        const std::lock_guard<std::mutex> lock(calls_mutex_);
        calls_.push_back(std::move(call));
    }
    wake();
}

void Addon::on_wake(napi_env env, napi_value, void* context, void*) {
    if (env) static_cast<Addon*>(context)->drain(env);
}

void Addon::drain(Napi::Env env) {
    // Finished jobs first: whatever they posted is among the calls then, and runs before they are destroyed.
    const std::vector<std::unique_ptr<Job>> finished_jobs = worker_->take_finished();
    std::vector<std::function<void(Napi::Env)>> calls;
    {
        const std::lock_guard<std::mutex> lock(calls_mutex_);
        calls.swap(calls_);
    }
    for (const auto& call : calls) call(env);
    for (const std::unique_ptr<Job>& job : finished_jobs) {
        const Napi::HandleScope scope(env);
        settle(env, *job);
        if (--pending_ == 0 && wake_) napi_unref_threadsafe_function(env, wake_);
    }
}

// A promise is settled whatever happens: where its result cannot be made, with the reason.
void Addon::settle(Napi::Env env, Job& job) {
    Settling& settling = *job.settling();
    settling.ended(env, job.status);
    Napi::Value value;
    if (job.status.ok()) {
        const Status status = caught([&] {
            value = settling.result(env);
            return Status{};
        });
        if (!status.ok()) job.status = status;
    }
    napi_value thrown = nullptr;
    if (env.IsExceptionPending() && napi_get_and_clear_last_exception(env, &thrown) == napi_ok) {
        settling.deferred.Reject(Napi::Value(env, thrown));
    } else if (job.status.ok() && !value.IsEmpty()) {
        settling.deferred.Resolve(value);
    } else {
        if (job.status.ok()) job.status = error("ERR_INTERNAL", "Node could not make the result of a finished job.");
        const Napi::Value reason = make_error(env, job.status);
        if (!reason.IsEmpty()) settling.deferred.Reject(reason);
    }
}

NODE_API_MODULE(onebit, init)

}  // namespace onebit
