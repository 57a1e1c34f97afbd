// The addon that only `npm run bench` loads: cases(isa, all) lists what can be timed, run(i, times) runs one of them.
#include <napi.h>

#include <string>

#include "kernels.h"

namespace onebit {

namespace {

struct State {
    std::vector<KernelCase> cases;
};

// cases(isa: string, all: boolean): [{ kernel, what, unit, work }]; replaces the ones before.
Napi::Value list_cases(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::string isa = call[0].IsString() ? call[0].As<Napi::String>().Utf8Value() : "";
    const char* why = nullptr;
    const KernelSet* set = choose_kernels(isa.c_str(), &why);
    if (!set) {
        Napi::Error::New(env, why).ThrowAsJavaScriptException();
        return {};
    }
    State& state = *env.GetInstanceData<State>();
    state.cases.clear();
    state.cases = kernel_cases(*set, call[1].ToBoolean().Value());
    const auto list = Napi::Array::New(env, state.cases.size());
    for (size_t i = 0; i < state.cases.size(); ++i) {
        const KernelCase& one = state.cases[i];
        const auto object = Napi::Object::New(env);
        object.Set("isa", set->name);
        object.Set("kernel", one.kernel);
        object.Set("what", one.what);
        object.Set("unit", one.unit);
        object.Set("work", one.work);
        list.Set(static_cast<uint32_t>(i), object);
    }
    return list;
}

// run(index: number, times: number): that many runs of one case, on this thread.
Napi::Value run_case(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const State& state = *env.GetInstanceData<State>();
    const int64_t index = call[0].IsNumber() ? call[0].As<Napi::Number>().Int64Value() : -1;
    const int64_t times = call[1].IsNumber() ? call[1].As<Napi::Number>().Int64Value() : 0;
    if (index < 0 || index >= static_cast<int64_t>(state.cases.size()) || times < 1 || times > 1'000'000) {
        Napi::RangeError::New(env, "run(index, times): no such case, or a wrong number of times")
            .ThrowAsJavaScriptException();
        return {};
    }
    const KernelCase& one = state.cases[static_cast<size_t>(index)];
    for (int64_t i = 0; i < times; ++i) one.run();
    return env.Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
    env.SetInstanceData(new State);
    exports.Set("cases", Napi::Function::New<list_cases>(env, "cases"));
    exports.Set("run", Napi::Function::New<run_case>(env, "run"));
    return exports;
}

NODE_API_MODULE(onebit_micro, init)

}  // namespace

}  // namespace onebit
