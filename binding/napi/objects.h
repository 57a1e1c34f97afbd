// The native objects behind NativeModel, NativeSession and NativeCancel.
//
// Ownership: a JavaScript object holds a shared_ptr to its state, and so does every job that uses it. States live and
// die on the JavaScript thread; only the Engine inside is touched by the worker, and only by one job at a time.
#pragma once

#include <atomic>
#include <cstring>
#include <memory>
#include <set>
#include <utility>

#include "model/fill.h"
#include "napi/addon.h"
#include "run/generation.h"

namespace onebit {

struct SessionState;

struct ModelState {
    std::shared_ptr<Engine> engine;  // null: disposed
    std::set<SessionState*> sessions;
    uint64_t memory_limit = 0;  // bytes; 0: none
    uint64_t checkpoint_limit = Checkpoints::kDefaultLimit;

    static constexpr const char* kName = "NativeModel";
    static constexpr napi_type_tag kTag = {0x6f6e656269742d6d, 0x9d1f0b7c52e84a31};
    uint64_t used_bytes() const;  // weights and sessions
    // Whether a session of so many bytes may be made; checkpoints have what is left of the limit then, and no more than theirs.
    bool makes_room(uint64_t bytes);
    void dispose();
    void forget(Napi::Env env);  // tells the collector about memory that went away
    int64_t told_bytes = 0;      // what the collector was told
};

struct SessionState {
    std::shared_ptr<ModelState> owner;
    std::unique_ptr<Session> session;  // null: disposed and no job uses it
    bool disposed = false;
    bool busy = false;   // a job has it
    int length = 0;      // session->length() when no job has it
    std::atomic<bool> stop{false};  // set by dispose()

    SessionState(std::shared_ptr<ModelState> model, std::unique_ptr<Session> made);
    ~SessionState();
    static constexpr const char* kName = "NativeSession";
    static constexpr napi_type_tag kTag = {0x6f6e656269742d73, 0x3b8e6c0d94f7152a};
    void dispose();
    void take();                   // by a job
    void give_back(Napi::Env env);  // by the job's ended()
    void forget(Napi::Env env);
    int64_t told_bytes = 0;
};

struct CancelState {
    CancelFlag flag = std::make_shared<std::atomic<bool>>(false);

    static constexpr const char* kName = "NativeCancel";
    static constexpr napi_type_tag kTag = {0x6f6e656269742d63, 0xe4026a8f17bd53c9};
    void forget(Napi::Env) {}
};

// A sampler, and how far the consumer of its tokens is: see generate.cpp.
struct SamplerState {
    SamplerState(SamplingOptions options, std::vector<int32_t> recent, int32_t vocab)
        : sampler(std::move(options), std::move(recent)), vocab_size(vocab) {}

    Sampler sampler;
    const int32_t vocab_size;
    bool busy = false;  // a job has it
    Progress progress;
    std::unique_ptr<Guesser> guesser;     // null: nothing is guessed
    std::shared_ptr<SessionState> draft;  // a small model's, which guesses too where the guesser has nothing; null: none
    std::unique_ptr<Ledger> draft_ledger;  // with `draft`

    static constexpr const char* kName = "NativeSampler";
    static constexpr napi_type_tag kTag = {0x6f6e656269742d70, 0x58c1e0b7f3946ad2};
    void forget(Napi::Env) {}
};

// A model that is still being made: see fill.cpp. The collector hears of its memory when it is finished, as with a model that
// is loaded from a file: told before, it would begin to collect while text is being made of a hundred thousand strings.
struct FillingState {
    std::unique_ptr<Filling> filling;  // used by jobs only
    int32_t threads = 0;
    uint64_t memory_limit = 0;
    bool failed = false;  // seen by jobs only
    bool ended = false;   // finished or disposed

    static constexpr const char* kName = "NativeFilling";
    static constexpr napi_type_tag kTag = {0x6f6e656269742d66, 0x27d4b90e61c8f35a};
    void forget(Napi::Env) {}
};

void tell_collector(Napi::Env env, int64_t bytes, int64_t* told);

// ---- states and their JavaScript objects --------------------------------------------------------------
// A foreign object, one of another addon, or a proxy has not our tag: a TypeError instead of a wild pointer.
template <class State>
std::shared_ptr<State> unwrap(Napi::Env env, Napi::Value value) {
    bool ours = false;
    void* box = nullptr;
    if (value.IsObject() && napi_check_object_type_tag(env, value, &State::kTag, &ours) == napi_ok && ours &&
        napi_unwrap(env, value, &box) == napi_ok) {
        return *static_cast<std::shared_ptr<State>*>(box);
    }
    throw_type(env, std::string("This is not a ") + State::kName + " of this addon.");
    return nullptr;
}

// Gives `object` the state. False when Node-API refuses.
template <class State>
bool wrap(Napi::Env env, Napi::Value object, std::shared_ptr<State> state) {
    using Box = std::shared_ptr<State>;
    auto box = std::make_unique<Box>(std::move(state));
    const auto finalize = [](napi_env finalizing, void* data, void*) {
        const std::unique_ptr<Box> owned(static_cast<Box*>(data));
        (*owned)->forget(finalizing);
    };
    if (napi_wrap(env, object, box.get(), finalize, nullptr, nullptr) != napi_ok) return false;
    box.release();  // the collector's now
    return napi_type_tag_object(env, object, &State::kTag) == napi_ok;
}

// An object of a class whose constructor is wrap_constructing. Empty when an exception is pending.
template <class State>
Napi::Value make_object(Napi::Env env, const Napi::FunctionReference& its_class, std::shared_ptr<State> state) {
    Addon::of(env).constructing = &state;
    const Napi::Value made = its_class.New({});
    Addon::of(env).constructing = nullptr;
    return made;
}

template <class State>
Napi::Value wrap_constructing(const Napi::CallbackInfo& call) {
    auto* state = static_cast<std::shared_ptr<State>*>(std::exchange(Addon::of(call.Env()).constructing, nullptr));
    if (!state || !call.IsConstructCall()) {
        throw_type(call.Env(), std::string(State::kName) + " cannot be constructed.");
        return {};
    }
    wrap(call.Env(), call.This(), *state);
    return call.This();
}

// ---- the classes --------------------------------------------------------------------------------------
Napi::Function model_class(Napi::Env env);
Napi::Function session_class(Napi::Env env);
Napi::Function cancel_class(Napi::Env env);
Napi::Function sampler_class(Napi::Env env);
Napi::Function filling_class(Napi::Env env);

Napi::Value load_model_call(const Napi::CallbackInfo& call);  // loadModel(options)
Napi::Value fill_model_call(const Napi::CallbackInfo& call);  // fillModel(options)
Napi::Value step_call(const Napi::CallbackInfo& call);        // step(model, items, options)
Napi::Value generate_call(const Napi::CallbackInfo& call);    // generate(model, item, options)

// The flag of `object.cancel`, or a new one when there is none. Null: an exception is pending.
CancelFlag read_cancel(Napi::Env env, Napi::Object object);
// False when the session is disposed or busy, or the sampler is busy; an exception is pending then.
bool check_usable(Napi::Env env, const SessionState& state);
bool check_usable(Napi::Env env, const SamplerState& state);
// Null: it is no sampler, or not one for a vocabulary of this size; an exception is pending.
std::shared_ptr<SamplerState> unwrap_sampler(Napi::Env env, Napi::Value value, int32_t vocab_size);
bool check_ids(Napi::Env env, const std::vector<int32_t>& ids, int32_t vocab_size, const char* name);
// Reads `tokens`: at least one, known to the model, with room after what is in the session.
bool read_tokens(Napi::Env env, Napi::Value value, const Config& config, const SessionState& state, StepItem* item);
// False: an exception is pending.
bool read_config(Napi::Env env, Napi::Value value, Config* out);
bool read_kinds(Napi::Env env, Napi::Value value, std::vector<NamedKind>* out);
bool read_tensors(Napi::Env env, Napi::Value value, std::vector<TensorSlot>* out);
Napi::Value config_fields(const Napi::CallbackInfo& call);  // configFields(): the names of what read_config reads
Napi::Value make_model(Napi::Env env, std::shared_ptr<Engine> engine, uint64_t memory_limit);
Napi::Value make_session(Napi::Env env, std::shared_ptr<ModelState> owner, std::unique_ptr<Session> session);

// A typed array of its own with the numbers copied.
template <class Array, class T>
Napi::Value copy_out(Napi::Env env, const T* data, size_t size) {
    Array array = Array::New(env, size);
    if (size > 0 && !array.IsEmpty()) std::memcpy(array.Data(), data, size * sizeof(T));
    return array;
}

template <class Array, class T>
Napi::Value copy_out(Napi::Env env, const std::vector<T>& data) {
    return copy_out<Array>(env, data.data(), data.size());
}

// A Node-API callback from a function on CallbackInfo.
template <Napi::Value (*call)(const Napi::CallbackInfo&)>
napi_value native_callback(napi_env env, napi_callback_info info) {
    return guarded<call>(Napi::CallbackInfo(env, info));
}

template <Napi::Value (*call)(const Napi::CallbackInfo&)>
napi_property_descriptor method(const char* name) {
    return {name, nullptr, native_callback<call>, nullptr, nullptr, nullptr, napi_default_method, nullptr};
}

template <Napi::Value (*call)(const Napi::CallbackInfo&)>
napi_property_descriptor getter(const char* name) {
    return {name, nullptr, nullptr, native_callback<call>, nullptr, nullptr, napi_enumerable, nullptr};
}

Napi::Function define_class(Napi::Env env, const char* name, napi_callback constructor,
                            const std::vector<napi_property_descriptor>& properties);

}  // namespace onebit
