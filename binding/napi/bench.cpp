// createRandomModel, measurePeaks, availableMemory: what a benchmark needs of the engine beside running it.
#include <cstring>
#include <utility>

#include "probes/available_memory.h"
#include "napi/fields.h"
#include "napi/objects.h"
#include "probes/probes.h"
#include "probes/random_model.h"

namespace onebit {

namespace {

// Null: an exception is pending.
const KernelSet* read_isa(Napi::Env env, Fields& fields) {
    std::string isa;
    fields.text("isa", 256, &isa);
    if (!fields.ok()) return nullptr;
    const char* why = nullptr;
    const KernelSet* kernels = choose_kernels(isa.c_str(), &why);
    if (!kernels) throw_status(env, error("ERR_ISA", why ? why : ""));
    return kernels;
}

class RandomJob final : public Job, public Settling {
public:
    using Settling::Settling;
    Settling* settling() override { return this; }

    void run(Pool& pool) override {
        options.cancel = cancel.get();
        engine_->threads = pool.resize(threads > 0 ? threads : default_threads());
        status = random_model(config, kinds, options, pool, &engine_->model);
    }
    Napi::Value result(Napi::Env env) override { return make_model(env, std::move(engine_), options.memory_limit); }

    Config config;
    std::vector<NamedKind> kinds;
    RandomOptions options;
    int32_t threads = 0;

private:
    std::shared_ptr<Engine> engine_ = std::make_shared<Engine>();
};

Napi::Value create_random_model(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto job = std::make_unique<RandomJob>(env);
    Fields fields(env, call[0], "options");
    int32_t activations = 0;
    fields.integer("seed", 0, kMaxSafeInteger, &job->options.seed);
    fields.integer("activations", 0, 2, &activations);
    fields.integer("threads", 0, Pool::kMaxThreads, &job->threads);
    fields.integer("memory_limit", 0, kMaxSafeInteger, &job->options.memory_limit);
    job->options.activations = static_cast<Activations>(activations);
    job->options.kernels = read_isa(env, fields);
    if (!job->options.kernels) return {};
    job->cancel = read_cancel(env, call[0].As<Napi::Object>());
    if (!job->cancel || !read_config(env, fields.get("config"), &job->config)) return {};
    if (!read_kinds(env, fields.get("kinds"), &job->kinds)) return {};
    if (const Status status = check_config(job->config); !status.ok()) {
        throw_status(env, status);
        return {};
    }
    return Addon::of(env).post(env, std::move(job));
}

class PeaksJob final : public Job, public Settling {
public:
    using Settling::Settling;
    Settling* settling() override { return this; }

    void run(Pool& pool) override {
        options.cancel = cancel.get();
        threads = pool.resize(threads > 0 ? threads : default_threads());
        status = measure_peaks(options, pool, &peaks_);
    }

    Napi::Value result(Napi::Env env) override {
        Napi::Object out = Napi::Object::New(env);
        out.Set("isa", options.kernels->name);
        out.Set("threads", threads);
        if (options.dram) {
            out.Set("dram_gbps", peaks_.dram_gbps);
            Napi::Array reads = Napi::Array::New(env);
            for (const DramRead& read : peaks_.dram) {
                Napi::Object entry = Napi::Object::New(env);
                entry.Set("pages", read.pages);
                entry.Set("loop", read.loop);
                entry.Set("gbps", read.gbps);
                reads.Set(reads.Length(), entry);
            }
            out.Set("dram", reads);
        }
        if (options.int8) out.Set("int8_peak_gmacs", peaks_.int8_peak_gmacs);
        if (options.lookup) out.Set("lookup_peak_gws", peaks_.lookup_peak_gws);
        if (options.f32) out.Set("f32_peak_gmacs", peaks_.f32_peak_gmacs);
        return out;
    }

    ProbeOptions options;
    int32_t threads = 0;

private:
    Peaks peaks_;
};

// what: an array of names; only these are measured.
bool read_what(Napi::Env env, Napi::Value value, ProbeOptions* out) {
    const std::pair<const char*, bool*> probes[] = {
        {"dram", &out->dram}, {"int8", &out->int8}, {"lookup", &out->lookup}, {"f32", &out->f32}};
    for (const auto& [name, wanted] : probes) *wanted = false;
    bool good = value.IsArray();
    const uint32_t count = good ? value.As<Napi::Array>().Length() : 0;
    for (uint32_t i = 0; good && i < count; ++i) {
        std::string text;
        if (!read_string(env, value.As<Napi::Array>().Get(i), "what", 16, &text)) return false;
        good = false;
        for (const auto& [name, wanted] : probes) {
            if (text != name) continue;
            good = *wanted = true;
        }
    }
    if (!good) throw_type(env, "what must be an array of dram, int8, lookup and f32.");
    return good;
}

Napi::Value measure_peaks_call(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto job = std::make_unique<PeaksJob>(env);
    Fields fields(env, call[0], "options");
    fields.integer("threads", 0, Pool::kMaxThreads, &job->threads);
    job->options.kernels = read_isa(env, fields);
    if (!job->options.kernels) return {};
    const auto object = call[0].As<Napi::Object>();
    if (has(object, "dram_bytes")) {
        fields.integer("dram_bytes", 1 << 20, kMaxSafeInteger, &job->options.dram_bytes);
        if (!fields.ok()) return {};
    }
    if (has(object, "what") && !read_what(env, object.Get("what"), &job->options)) return {};
    job->cancel = read_cancel(env, object);
    if (!job->cancel) return {};
    return Addon::of(env).post(env, std::move(job));
}

Napi::Value available_memory_call(const Napi::CallbackInfo& call) {
    return Napi::Number::New(call.Env(), static_cast<double>(available_memory()));
}

}  // namespace

void register_bench(Napi::Object exports) {
    export_call<create_random_model>(exports, "createRandomModel");
    export_call<measure_peaks_call>(exports, "measurePeaks");
    export_call<available_memory_call>(exports, "availableMemory");
}

}  // namespace onebit
