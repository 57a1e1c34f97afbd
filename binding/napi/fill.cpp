// NativeFilling: a model that is made of pieces which come from JavaScript. Pieces are placed on the worker, while
// JavaScript makes the next.
#include "model/fill.h"

#include <chrono>
#include <utility>
#include <vector>

#include "napi/fields.h"
#include "napi/objects.h"

namespace onebit {

namespace {

constexpr size_t kMaxPieceBytes = size_t{1} << 30;
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kMaxPathBytes = 1 << 16;
constexpr size_t kMaxNames = size_t{16} << 20;
constexpr size_t kMaxTensors = size_t{1} << 18;
constexpr size_t kMaxFiles = 4096;
constexpr auto kProgressInterval = std::chrono::milliseconds(50);

// Waits for what was posted before, as every job does.
class WriteJob final : public Job, public Settling {
public:
    WriteJob(Napi::Env env, std::shared_ptr<FillingState> state) : Settling(env), state_(std::move(state)) {}
    Settling* settling() override { return this; }
    void run(Pool&) override {
        status = state_->failed ? error("ERR_DISPOSED", "An earlier piece of this model failed.")
                                : state_->filling->write(name, bytes.data(), bytes.size());
        if (!status.ok()) state_->failed = true;
    }
    Napi::Value result(Napi::Env env) override { return env.Undefined(); }

    std::string name;
    std::vector<unsigned char> bytes;

private:
    std::shared_ptr<FillingState> state_;
};

// Waits for what was posted before, as every job does.
class ConvertJob final : public Job, public Settling {
public:
    ConvertJob(Napi::Env env, std::shared_ptr<FillingState> state) : Settling(env), addon_(Addon::of(env)), state_(std::move(state)) {}
    Settling* settling() override { return this; }
    void run(Pool& pool) override {
        options.cancel = cancel.get();
        if (!on_progress.IsEmpty()) options.progress = [this](uint64_t done) { report(done); };
        pool.resize(state_->threads > 0 ? state_->threads : default_threads());
        status = state_->failed ? error("ERR_DISPOSED", "An earlier piece of this model failed.")
                                : state_->filling->convert(tensors, options, pool);
        if (!status.ok()) state_->failed = true;
    }
    Napi::Value result(Napi::Env env) override { return env.Undefined(); }

    std::vector<StoredTensor> tensors;
    StoredOptions options;
    Napi::FunctionReference on_progress;

private:
    // On computing threads, one at a time. What is posted runs before the job is destroyed (Addon::drain).
    void report(uint64_t done) {
        const auto now = std::chrono::steady_clock::now();
        if (now - reported_ < kProgressInterval) return;
        reported_ = now;
        addon_.post_call([this, done](Napi::Env env) {
            const Napi::HandleScope scope(env);
            on_progress.Call({Napi::Number::New(env, static_cast<double>(done))});
        });
    }

    Addon& addon_;
    std::shared_ptr<FillingState> state_;
    std::chrono::steady_clock::time_point reported_ = std::chrono::steady_clock::now();
};

class FinishJob final : public Job, public Settling {
public:
    FinishJob(Napi::Env env, std::shared_ptr<FillingState> state) : Settling(env), state_(std::move(state)) {}
    Settling* settling() override { return this; }
    void run(Pool& pool) override {
        if (state_->failed) {
            status = error("ERR_DISPOSED", "A piece of this model failed.");
            return;
        }
        engine_->threads = pool.resize(state_->threads > 0 ? state_->threads : default_threads());
        status = state_->filling->finish(&engine_->model);
    }
    Napi::Value result(Napi::Env env) override { return make_model(env, std::move(engine_), state_->memory_limit); }

private:
    std::shared_ptr<FillingState> state_;
    std::shared_ptr<Engine> engine_ = std::make_shared<Engine>();
};

// Reserving gigabytes takes a while.
class CreateJob final : public Job, public Settling {
public:
    explicit CreateJob(Napi::Env env) : Settling(env) {}
    Settling* settling() override { return this; }
    void run(Pool&) override { status = Filling::create(config, kinds, activations, kernels, &state->filling); }
    Napi::Value result(Napi::Env env) override {
        tell_collector(env, static_cast<int64_t>(state->filling->weight_bytes()), &state->told_bytes);
        return make_object(env, Addon::of(env).filling_class, std::move(state));
    }

    Config config;
    std::vector<NamedKind> kinds;
    Activations activations = Activations::int8;
    const KernelSet* kernels = nullptr;
    std::shared_ptr<FillingState> state = std::make_shared<FillingState>();
};

bool check_usable(Napi::Env env, const FillingState& state) {
    if (!state.ended) return true;
    throw_status(env, error("ERR_DISPOSED", "The model is finished, or was disposed."));
    return false;
}

// write(name, bytes)
Napi::Value filling_write(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<FillingState> state = unwrap<FillingState>(env, call.This());
    if (!state || !check_usable(env, *state)) return {};
    auto job = std::make_unique<WriteJob>(env, state);
    if (!read_string(env, call[0], "name", kMaxNameBytes, &job->name)) return {};
    if (!read_array(env, call[1], "bytes", kMaxPieceBytes, &job->bytes)) return {};
    return Addon::of(env).post(env, std::move(job));
}

bool read_paths(Napi::Env env, Napi::Value value, std::vector<std::string>* out) {
    if (!value.IsArray() || value.As<Napi::Array>().Length() > kMaxFiles) {
        throw_type(env, "paths: must be an array of at most 4096 strings");
        return false;
    }
    const Napi::Array array = value.As<Napi::Array>();
    out->resize(array.Length());
    for (uint32_t i = 0; i < array.Length(); ++i) {
        if (!read_string(env, array.Get(i), "paths", kMaxPathBytes, &(*out)[i])) return false;
        if ((*out)[i].find('\0') == std::string::npos) continue;
        throw_type(env, "paths: a path contains a zero character");
        return false;
    }
    return true;
}

bool read_stored(Napi::Env env, Fields& fields, size_t paths, std::vector<StoredTensor>* out) {
    std::string names, labels, types;
    std::vector<int32_t> files;
    std::vector<double> offsets;
    fields.text("names", kMaxNames, &names);
    fields.text("labels", kMaxNames, &labels);
    fields.text("types", kMaxNames, &types);
    fields.array("files", kMaxTensors, &files);
    fields.array("offsets", kMaxTensors, &offsets);
    if (!fields.ok()) return false;
    std::vector<std::string> name = lines_of(names), label = lines_of(labels), type = lines_of(types);
    const size_t count = files.size();
    bool good = name.size() == count && label.size() == count && type.size() == count && offsets.size() == count;
    for (size_t i = 0; good && i < count; ++i) {
        SourceType known{};
        good = source_type_from_name(type[i].c_str(), &known) && files[i] >= 0 && static_cast<size_t>(files[i]) < paths &&
               offsets[i] >= 0 && offsets[i] <= static_cast<double>(kMaxSafeInteger);
        if (good) out->push_back({std::move(name[i]), std::move(label[i]), known, static_cast<size_t>(files[i]), static_cast<uint64_t>(offsets[i])});
    }
    if (!good) throw_type(env, "names, labels, types, files and offsets must be of the same length, of known types, in given files");
    return good;
}

// convert({paths, names, labels, types, files, offsets, cancel?, onProgress?})
Napi::Value filling_convert(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<FillingState> state = unwrap<FillingState>(env, call.This());
    if (!state || !check_usable(env, *state)) return {};
    auto job = std::make_unique<ConvertJob>(env, state);
    Fields fields(env, call[0], "options");
    if (!fields.ok() || !read_paths(env, fields.get("paths"), &job->options.paths)) return {};
    if (!read_stored(env, fields, job->options.paths.size(), &job->tensors)) return {};
    const Napi::Value progress = fields.get("onProgress");
    if (progress.IsFunction()) job->on_progress = Napi::Persistent(progress.As<Napi::Function>());
    job->cancel = read_cancel(env, call[0].As<Napi::Object>());
    if (!job->cancel) return {};
    return Addon::of(env).post(env, std::move(job));
}

Napi::Value filling_finish(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<FillingState> state = unwrap<FillingState>(env, call.This());
    if (!state || !check_usable(env, *state)) return {};
    state->ended = true;
    state->forget(env);
    return Addon::of(env).post(env, std::make_unique<FinishJob>(env, state));
}

// Pieces that wait still have the state, and the memory goes with the last of them.
Napi::Value filling_dispose(const Napi::CallbackInfo& call) {
    const std::shared_ptr<FillingState> state = unwrap<FillingState>(call.Env(), call.This());
    if (!state) return {};
    state->ended = true;
    state->forget(call.Env());
    return call.Env().Undefined();
}

}  // namespace

void FillingState::forget(Napi::Env env) { tell_collector(env, 0, &told_bytes); }

Napi::Function filling_class(Napi::Env env) {
    return define_class(env, FillingState::kName, native_callback<wrap_constructing<FillingState>>,
                        {method<filling_write>("write"), method<filling_convert>("convert"), method<filling_finish>("finish"), method<filling_dispose>("dispose")});
}

// fillModel(options)
Napi::Value fill_model_call(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto job = std::make_unique<CreateJob>(env);
    Fields fields(env, call[0], "options");
    int32_t activations = 0;
    std::string isa;
    fields.integer("activations", 0, 2, &activations);
    fields.integer("threads", 0, Pool::kMaxThreads, &job->state->threads);
    fields.integer("memory_limit", 0, kMaxSafeInteger, &job->state->memory_limit);
    fields.text("isa", 256, &isa);
    if (!fields.ok()) return {};
    job->activations = static_cast<Activations>(activations);
    if (!read_config(env, fields.get("config"), &job->config)) return {};
    if (!read_kinds(env, fields.get("kinds"), &job->kinds)) return {};
    const char* why = nullptr;
    job->kernels = choose_kernels(isa.c_str(), &why);
    if (const Status status = job->kernels ? check_config(job->config) : error("ERR_ISA", why ? why : ""); !status.ok()) {
        throw_status(env, status);
        return {};
    }
    return Addon::of(env).post(env, std::move(job));
}

}  // namespace onebit
