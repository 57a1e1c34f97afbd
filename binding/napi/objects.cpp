// The states behind the native objects, and NativeModel and NativeCancel as JavaScript sees them.
#include "napi/objects.h"

#include <algorithm>
#include <utility>

namespace onebit {

uint64_t ModelState::used_bytes() const {
    uint64_t bytes = engine ? engine->model->weight_bytes() : 0;
    for (const SessionState* state : sessions) bytes += state->session ? state->session->capacity_bytes() : 0;
    return bytes;
}

bool ModelState::makes_room(uint64_t bytes) {
    const uint64_t wanted = used_bytes() + bytes;
    if (memory_limit > 0 && wanted > memory_limit) return false;
    engine->model->checkpoints->set_limit(memory_limit > 0 ? std::min(checkpoint_limit, memory_limit - wanted) : checkpoint_limit);
    return true;
}

void ModelState::dispose() {
    for (SessionState* state : sessions) state->dispose();
    engine.reset();
}

void ModelState::forget(Napi::Env env) { tell_collector(env, 0, &told_bytes); }

SessionState::SessionState(std::shared_ptr<ModelState> model, std::unique_ptr<Session> made)
    : owner(std::move(model)), session(std::move(made)), length(session->length()) {
    owner->sessions.insert(this);
}

SessionState::~SessionState() { owner->sessions.erase(this); }

void SessionState::dispose() {
    disposed = true;
    length = 0;
    stop.store(true, std::memory_order_relaxed);
    if (!busy) session.reset();
}

void SessionState::take() { busy = true; }

void SessionState::give_back(Napi::Env env) {
    busy = false;
    if (disposed) {
        session.reset();
    } else {
        length = session->length();
        tell_collector(env, static_cast<int64_t>(session->bytes()), &told_bytes);  // a cache grows as it is used
    }
}

void SessionState::forget(Napi::Env env) { tell_collector(env, 0, &told_bytes); }

void tell_collector(Napi::Env env, int64_t bytes, int64_t* told) {
    int64_t total = 0;
    if (bytes != *told) napi_adjust_external_memory(env, bytes - *told, &total);
    *told = bytes;
}

bool check_usable(Napi::Env env, const SessionState& state) {
    if (state.disposed) {
        throw_status(env, error("ERR_DISPOSED", "The session has been disposed."));
    } else if (state.busy) {
        throw_status(env, error("ERR_BUSY", "The session is in the middle of something else."));
    }
    return !state.disposed && !state.busy;
}

CancelFlag read_cancel(Napi::Env env, Napi::Object object) {
    const Napi::Value value = object.Get("cancel");
    if (value.IsEmpty()) return nullptr;
    if (value.IsUndefined()) return std::make_shared<std::atomic<bool>>(false);
    const std::shared_ptr<CancelState> state = unwrap<CancelState>(env, value);
    return state ? state->flag : nullptr;
}

Napi::Value make_session(Napi::Env env, std::shared_ptr<ModelState> owner, std::unique_ptr<Session> session) {
    const auto state = std::make_shared<SessionState>(std::move(owner), std::move(session));
    tell_collector(env, static_cast<int64_t>(state->session->bytes()), &state->told_bytes);
    return make_object(env, Addon::of(env).session_class, state);
}

Napi::Function define_class(Napi::Env env, const char* name, napi_callback constructor,
                            const std::vector<napi_property_descriptor>& properties) {
    napi_value made = nullptr;
    napi_define_class(env, name, NAPI_AUTO_LENGTH, constructor, nullptr, properties.size(), properties.data(), &made);
    return Napi::Function(env, made);
}

namespace {

// ---- NativeModel -------------------------------------------------------------------------------------
bool check_usable(Napi::Env env, const ModelState& state) {
    if (state.engine) return true;
    throw_status(env, error("ERR_DISPOSED", "The model has been disposed."));
    return false;
}

// In the order of KV_TYPES in src/run/kv.ts.
constexpr DType kKvTypes[] = {DType::f16, DType::f32, DType::q8};

Napi::Value model_create_session(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(env, call.This());
    int32_t capacity = 0, kv = 0;
    if (!state || !check_usable(env, *state)) return {};
    if (!read_int(env, call[0], "capacity", 1, kMaxContext, &capacity) || !read_int(env, call[1], "kv", 0, 2, &kv)) {
        return {};
    }
    std::unique_ptr<Session> session;
    Status status = Session::create(state->engine->model, capacity, kKvTypes[kv], &session);
    // The memory is only promised so far, a cache takes it as it fills; but what may be taken is what a limit is about.
    if (status.ok() && !state->makes_room(session->capacity_bytes())) {
        status = error("ERR_MEMORY_LIMIT", "A session of " + std::to_string(session->capacity_bytes()) + " bytes beside the " +
                                               std::to_string(state->used_bytes()) +
                                               " bytes in use is more than the limit of " +
                                               std::to_string(state->memory_limit) + " bytes.");
    }
    if (!status.ok()) {
        throw_status(env, status);
        return {};
    }
    return make_session(env, state, std::move(session));
}

// limitCheckpoints(bytes)
Napi::Value model_limit_checkpoints(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(env, call.This());
    int64_t bytes = 0;
    if (!state || !check_usable(env, *state) || !read_int(env, call[0], "bytes", 0, int64_t{1} << 50, &bytes)) return {};
    state->checkpoint_limit = static_cast<uint64_t>(bytes);
    state->makes_room(0);
    return env.Undefined();
}

Napi::Value model_checkpoint_bytes(const Napi::CallbackInfo& call) {
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(call.Env(), call.This());
    if (!state || !check_usable(call.Env(), *state)) return {};
    return Napi::Number::New(call.Env(), static_cast<double>(state->engine->model->checkpoints->bytes()));
}

// Frees weights on the worker: giving gigabytes back to the system takes a while.
class ReleaseJob final : public Job, public Settling {
public:
    ReleaseJob(Napi::Env env, std::shared_ptr<Engine> engine) : Settling(env), engine_(std::move(engine)) {}
    Settling* settling() override { return this; }
    void run(Pool&) override { engine_.reset(); }
    Napi::Value result(Napi::Env env) override { return env.Undefined(); }

private:
    std::shared_ptr<Engine> engine_;
};

Napi::Value model_dispose(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(env, call.This());
    if (!state) return {};
    auto job = std::make_unique<ReleaseJob>(env, state->engine);
    state->dispose();
    state->forget(env);
    for (SessionState* session : state->sessions) session->forget(env);
    return Addon::of(env).post(env, std::move(job));
}

Napi::Value model_disposed(const Napi::CallbackInfo& call) {
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(call.Env(), call.This());
    return state ? Napi::Boolean::New(call.Env(), !state->engine) : Napi::Value();
}

Napi::Value model_weight_bytes(const Napi::CallbackInfo& call) {
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(call.Env(), call.This());
    if (!state || !check_usable(call.Env(), *state)) return {};
    return Napi::Number::New(call.Env(), static_cast<double>(state->engine->model->weight_bytes()));
}

Napi::Value model_isa(const Napi::CallbackInfo& call) {
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(call.Env(), call.This());
    if (!state || !check_usable(call.Env(), *state)) return {};
    return Napi::String::New(call.Env(), state->engine->model->kernels->name);
}

Napi::Value model_threads(const Napi::CallbackInfo& call) {
    const std::shared_ptr<ModelState> state = unwrap<ModelState>(call.Env(), call.This());
    if (!state || !check_usable(call.Env(), *state)) return {};
    return Napi::Number::New(call.Env(), state->engine->threads);
}

// ---- NativeCancel ------------------------------------------------------------------------------------
Napi::Value cancel_construct(const Napi::CallbackInfo& call) {
    if (!call.IsConstructCall()) {
        throw_type(call.Env(), "Cancel needs new.");
        return {};
    }
    wrap(call.Env(), call.This(), std::make_shared<CancelState>());
    return call.This();
}

Napi::Value cancel_cancel(const Napi::CallbackInfo& call) {
    const std::shared_ptr<CancelState> state = unwrap<CancelState>(call.Env(), call.This());
    if (!state) return {};
    state->flag->store(true, std::memory_order_relaxed);
    return call.Env().Undefined();
}

Napi::Value cancel_cancelled(const Napi::CallbackInfo& call) {
    const std::shared_ptr<CancelState> state = unwrap<CancelState>(call.Env(), call.This());
    return state ? Napi::Boolean::New(call.Env(), state->flag->load(std::memory_order_relaxed)) : Napi::Value();
}

}  // namespace

Napi::Function model_class(Napi::Env env) {
    return define_class(env, ModelState::kName, native_callback<wrap_constructing<ModelState>>,
                        {method<model_create_session>("createSession"), method<model_dispose>("dispose"),
                         method<model_limit_checkpoints>("limitCheckpoints"), getter<model_checkpoint_bytes>("checkpointBytes"),
                         getter<model_disposed>("disposed"), getter<model_weight_bytes>("weightBytes"),
                         getter<model_isa>("isa"), getter<model_threads>("threads")});
}

Napi::Function cancel_class(Napi::Env env) {
    return define_class(env, CancelState::kName, native_callback<cancel_construct>,
                        {method<cancel_cancel>("cancel"), getter<cancel_cancelled>("cancelled")});
}

void register_model(Napi::Env env, Napi::Object exports) {
    Addon& addon = Addon::of(env);
    addon.model_class = Napi::Persistent(model_class(env));
    addon.session_class = Napi::Persistent(session_class(env));
    addon.filling_class = Napi::Persistent(filling_class(env));
    exports.Set("Cancel", cancel_class(env));
    exports.Set("Sampler", sampler_class(env));
    export_call<load_model_call>(exports, "loadModel");
    export_call<fill_model_call>(exports, "fillModel");
    export_call<step_call>(exports, "step");
    export_call<generate_call>(exports, "generate");
    export_call<config_fields>(exports, "configFields");
}

}  // namespace onebit
