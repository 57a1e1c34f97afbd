// What the files of this folder share. They are the only ones that know Node-API.
//
// Rules that hold everywhere here:
//   - State belongs to a Node environment (Addon), never to the process: worker threads load the addon too.
//   - Every argument is checked here again, by value, after it was copied: a caller that lies gets an error.
//   - When a call to Node-API fails we return at once and leave the pending exception alone. While an environment is
//     being torn down every call may fail.
//   - JavaScript memory is copied; no pointer into it lives longer than the call, but for arrays that no script has seen yet.
#pragma once

#include <napi.h>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "system/status.h"
#include "system/worker.h"

namespace onebit {

class Addon;

// The promise that the end of a job settles. A job that has one is also a Settling.
class Settling {
public:
    explicit Settling(Napi::Env env) : deferred(Napi::Promise::Deferred::New(env)) {}

    // On the JavaScript thread after run(): the value to resolve with. Called only when the job's status is ok.
    virtual Napi::Value result(Napi::Env env) = 0;
    // On the JavaScript thread in any case, before result(). May change the status.
    virtual void ended(Napi::Env, Status&) {}

    Napi::Promise::Deferred deferred;

protected:
    ~Settling() = default;
};

// Instance data of one Node environment.
class Addon {
public:
    explicit Addon(Napi::Env env);
    ~Addon();
    Addon(const Addon&) = delete;
    Addon& operator=(const Addon&) = delete;

    static Addon& of(Napi::Env env) { return *env.GetInstanceData<Addon>(); }

    // Queues the job and returns its promise. The process stays alive until it is settled.
    Napi::Value post(Napi::Env env, std::unique_ptr<Job> job);
    // From a job's run(): `call` runs soon on the JavaScript thread, unless the environment goes away first.
    void post_call(std::function<void(Napi::Env)> call);
    // Cancels, joins, drops what waits. Any number of times.
    void shut_down();

    Napi::FunctionReference error_factory;  // (code, message) => Error; empty until useErrors()
    Napi::FunctionReference model_class;
    Napi::FunctionReference session_class;
    Napi::FunctionReference filling_class;
    void* constructing = nullptr;  // what a class constructor wraps; null when a script calls it

private:
    void wake();
    void drain(Napi::Env env);
    void settle(Napi::Env env, Job& job);
    static void on_wake(napi_env env, napi_value, void* context, void*);

    napi_threadsafe_function wake_ = nullptr;
    std::unique_ptr<Worker> worker_;
    std::mutex calls_mutex_;
    std::vector<std::function<void(Napi::Env)>> calls_;
    int pending_ = 0;
};

// ---- errors ------------------------------------------------------------------------------------------
Napi::Value make_error(Napi::Env env, const Status& status);  // an OnebitError
void throw_status(Napi::Env env, const Status& status);
// The call, with memory that cannot be had as an exception of JavaScript.
template <Napi::Value (*call)(const Napi::CallbackInfo&)>
Napi::Value guarded(const Napi::CallbackInfo& info) {
    try {
        return call(info);
    } catch (const std::exception&) {
        throw_status(info.Env(), {"ERR_OUT_OF_MEMORY", {}});
        return {};
    }
}
// A function of the addon's exports.
template <Napi::Value (*call)(const Napi::CallbackInfo&)>
void export_call(Napi::Object exports, const char* name) {
    exports.Set(name, Napi::Function::New<guarded<call>>(exports.Env(), name));
}
// A TypeError with code ERR_BAD_ARGUMENT, unless an exception is pending already.
void throw_type(Napi::Env env, const std::string& message);

// ---- arguments: false means that an exception is pending --------------------------------------------
bool read_int(Napi::Env env, Napi::Value value, const char* name, int64_t min, int64_t max, int64_t* out);
bool read_int(Napi::Env env, Napi::Value value, const char* name, int64_t min, int64_t max, int32_t* out);
bool read_double(Napi::Env env, Napi::Value value, const char* name, double min, double max, double* out);
bool read_float(Napi::Env env, Napi::Value value, const char* name, double min, double max, float* out);
bool read_bool(Napi::Env env, Napi::Value value, const char* name, bool* out);
bool read_string(Napi::Env env, Napi::Value value, const char* name, size_t max_bytes, std::string* out);
bool read_object(Napi::Env env, Napi::Value value, const char* name, Napi::Object* out);
// Copies a typed array of exactly this element type with at most `max` elements.
bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<int32_t>* out);
bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<unsigned char>* out);
bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<uint32_t>* out);
bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<float>* out);
bool read_array(Napi::Env env, Napi::Value value, const char* name, size_t max, std::vector<double>* out);
bool has(Napi::Object object, const char* name);  // present and not undefined

// ---- parts of the exports ----------------------------------------------------------------------------
void register_model(Napi::Env env, Napi::Object exports);    // loadModel, step, classes
void register_convert(Napi::Object exports);  // conversions of weights
void register_bench(Napi::Object exports);    // random models, what the machine can do

}  // namespace onebit
