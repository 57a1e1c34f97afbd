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

// One linear has at most 7 tensors; the embedding, the head and the norms are few.
constexpr size_t kMaxSlots = static_cast<size_t>(kMaxLayers) * (kRoles * 7 + 4) + 16;

bool read_kind(Napi::Env env, Napi::Value value, const char* name, LinearKind* out) {
    Fields fields(env, value, name);
    int32_t form = 0, dtype = 0;
    fields.integer("form", 0, 2, &form);
    fields.integer("dtype", 0, 3, &dtype);
    fields.integer("rank", 0, kMaxDim, &out->rank);
    fields.boolean("mid_scale", &out->mid_scale);
    fields.boolean("layernorm", &out->layernorm);
    fields.boolean("bias", &out->bias);
    out->form = static_cast<LinearKind::Form>(form);
    out->dtype = static_cast<DType>(dtype);
    return fields.ok();
}

bool read_rope(Napi::Env env, Napi::Value value, RopeConfig* out) {
    Fields fields(env, value, "rope");
    int32_t scaling = 0;
    fields.boolean("interleaved", &out->interleaved);
    fields.number("theta", &out->theta);
    fields.integer("scaling", 0, 4, &scaling);
    fields.number("factor", &out->factor);
    fields.number("low_freq_factor", &out->low_freq_factor);
    fields.number("high_freq_factor", &out->high_freq_factor);
    fields.number("original_context", &out->original_context);
    fields.number("beta_fast", &out->beta_fast);
    fields.number("beta_slow", &out->beta_slow);
    fields.number("attention_factor", &out->attention_factor);
    fields.array("factors", kMaxHeadDim / 2, &out->factors);
    out->scaling = static_cast<RopeConfig::Scaling>(scaling);
    return fields.ok();
}

bool read_linears(Napi::Env env, Napi::Value value, size_t count, std::vector<LinearKind>* out) {
    if (!value.IsArray() || value.As<Napi::Array>().Length() != count) {
        throw_type(env, "linears must be an array of n_layers x 7 kinds.");
        return false;
    }
    const auto array = value.As<Napi::Array>();
    out->resize(count);
    for (size_t i = 0; i < count; ++i) {
        const Napi::HandleScope scope(env);
        if (!read_kind(env, array.Get(static_cast<uint32_t>(i)), "linears", &(*out)[i])) return false;
    }
    return true;
}

}  // namespace

bool read_config(Napi::Env env, Napi::Value value, Config* out) {
    Fields fields(env, value, "config");
    fields.integer("vocab_size", 1, kMaxVocab, &out->vocab_size);
    fields.integer("dim", 1, kMaxDim, &out->dim);
    fields.integer("hidden_dim", 1, kMaxDim, &out->hidden_dim);
    fields.integer("n_layers", 1, kMaxLayers, &out->n_layers);
    fields.integer("n_heads", 1, kMaxHeads, &out->n_heads);
    fields.integer("n_kv_heads", 1, kMaxHeads, &out->n_kv_heads);
    fields.integer("head_dim", 1, kMaxHeadDim, &out->head_dim);
    fields.integer("context_length", 1, kMaxContext, &out->context_length);
    fields.number("norm_eps", &out->norm_eps);
    fields.boolean("qk_norm", &out->qk_norm);
    fields.boolean("tied_head", &out->tied_head);
    if (!fields.ok() || !read_rope(env, fields.get("rope"), &out->rope)) return false;
    if (!read_kind(env, fields.get("embedding"), "embedding", &out->embedding)) return false;
    if (!read_kind(env, fields.get("head"), "head", &out->head)) return false;
    return read_linears(env, fields.get("linears"), static_cast<size_t>(out->n_layers) * kRoles, &out->linears);
}

Napi::Value make_model(Napi::Env env, std::shared_ptr<Engine> engine, uint64_t memory_limit) {
    auto state = std::make_shared<ModelState>();
    state->engine = std::move(engine);
    state->memory_limit = memory_limit;
    tell_collector(env, static_cast<int64_t>(state->used_bytes()), &state->told_bytes);
    return make_object(env, Addon::of(env).model_class, std::move(state));
}

namespace {

bool read_slots(Napi::Env env, Napi::Value value, std::vector<TensorSlot>* out) {
    Fields fields(env, value, "slots");
    std::vector<double> offsets, bytes;
    std::vector<uint32_t> crc32c;
    fields.array("offsets", kMaxSlots, &offsets);
    fields.array("bytes", kMaxSlots, &bytes);
    fields.array("crc32c", kMaxSlots, &crc32c);
    if (!fields.ok()) return false;
    const auto whole = [](double x) { return x >= 0 && x <= kMaxSafeInteger && x == static_cast<double>(static_cast<int64_t>(x)); };
    if (bytes.size() != offsets.size() || crc32c.size() != offsets.size() ||
        !std::all_of(offsets.begin(), offsets.end(), whole) || !std::all_of(bytes.begin(), bytes.end(), whole)) {
        throw_type(env, "slots: offsets, bytes and crc32c must be of the same length, offsets and bytes integers >= 0.");
        return false;
    }
    out->resize(offsets.size());
    for (size_t i = 0; i < out->size(); ++i) {
        (*out)[i] = {static_cast<uint64_t>(offsets[i]), static_cast<uint64_t>(bytes[i]), crc32c[i]};
    }
    return true;
}

class LoadJob : public PromiseJob {
public:
    explicit LoadJob(Napi::Env env) : PromiseJob(env), addon_(Addon::of(env)) {}

    void run(Pool& pool) override {
        options.cancel = cancel.get();
        if (!on_progress.IsEmpty()) options.progress = [this](uint64_t done) { report(done); };
        engine_->threads = pool.resize(threads > 0 ? threads : default_threads());
        status = load_model(config, slots, options, pool, &engine_->model);
    }

    Napi::Value result(Napi::Env env) override { return make_model(env, std::move(engine_), memory_limit); }

    Config config;
    std::vector<TensorSlot> slots;
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
    if (!read_slots(env, fields.get("slots"), &job.slots)) return false;
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
