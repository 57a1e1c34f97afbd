// step(model, items, options): the arguments, the job, and its results as JavaScript values.
#include "run/step.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>

#include "napi/objects.h"

namespace onebit {

namespace {

constexpr uint32_t kMaxItems = 1024;
constexpr int32_t kMaxTop = 1024;
// Results are copied to JavaScript on its own thread, so nobody may ask for gigabytes at once.
constexpr uint64_t kMaxResultFloats = uint64_t{1} << 27;

// Whoever guesses for a sampler knows all that it chose, also between calls of generate().
void tell_guesser(SamplerState& state, const StepItem& item) {
    if (!state.guesser) return;
    for (const Choice& one : item.choices) state.guesser->push(one.id);
}

class StepJob final : public Job, public Settling {
public:
    using Settling::Settling;
    Settling* settling() override { return this; }

    void take() {
        for (const auto& session : sessions) session->take();
        for (const auto& sampler : samplers) sampler->busy = true;
    }
    void run(Pool& pool) override {
        pool.resize(engine->threads);
        request.cancel = cancel.get();
        for (const auto& item : items) request.items.push_back(item.get());
        const auto start = std::chrono::steady_clock::now();
        status = run_step(*engine, pool, request);
        const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
        step_ms = took.count();
        for (const auto& item : items) {
            if (status.ok() && !item->sampled.ok()) status = item->sampled;
        }
        auto sampler = samplers.begin();
        for (const auto& item : items) {
            if (item->sampler) tell_guesser(**sampler++, *item);
        }
    }
    void ended(Napi::Env env, Status&) override {
        for (const auto& session : sessions) session->give_back(env);
        for (const auto& sampler : samplers) sampler->busy = false;
        engine.reset();
    }
    Napi::Value result(Napi::Env env) override;

    std::shared_ptr<Engine> engine;
    std::vector<std::shared_ptr<SessionState>> sessions;  // of the items
    std::vector<std::shared_ptr<SamplerState>> samplers;  // of the items that have one
    std::vector<std::unique_ptr<StepItem>> items;
    StepRequest request;
    double step_ms = 0;  // what of the time between call and result was computing
};

}  // namespace

// ---- arguments ---------------------------------------------------------------------------------------
bool check_ids(Napi::Env env, const std::vector<int32_t>& ids, int32_t vocab_size, const char* name) {
    const auto bad = std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= vocab_size; });
    if (bad == ids.end()) return true;
    throw_status(env, error("ERR_TOKEN_RANGE", std::string(name) + "[" + std::to_string(bad - ids.begin()) + "] is " +
                                                   std::to_string(*bad) + "; the model knows the ids 0 to " +
                                                   std::to_string(vocab_size - 1) + "."));
    return false;
}

bool read_tokens(Napi::Env env, Napi::Value value, const Config& config, const SessionState& state, StepItem* item) {
    if (!read_array(env, value, "tokens", static_cast<size_t>(kMaxContext), &item->tokens)) return false;
    if (item->tokens.empty()) {
        throw_type(env, "tokens must have at least one element.");
        return false;
    }
    const int64_t wanted = state.length + static_cast<int64_t>(item->tokens.size());
    if (!state.session || wanted <= state.session->capacity()) {
        return check_ids(env, item->tokens, config.vocab_size, "tokens");
    }
    throw_status(env, error("ERR_CONTEXT_FULL", std::to_string(item->tokens.size()) + " tokens after the " +
                                                    std::to_string(state.length) +
                                                    " in the cache do not fit into a context of " +
                                                    std::to_string(state.session->capacity()) + "."));
    return false;
}

namespace {

bool read_score(Napi::Env env, Napi::Value value, int32_t vocab_size, StepItem* item) {
    if (value.IsEmpty() || value.IsUndefined()) return !value.IsEmpty();
    Napi::Object object;
    item->wants_scores = true;
    ScoreRequest& score = item->score;
    const auto tokens = static_cast<int64_t>(item->tokens.size());
    if (!read_object(env, value, "score", &object) ||
        !read_int(env, object.Get("from"), "from", 0, tokens - 1, &score.from) ||
        !read_int(env, object.Get("top"), "top", 0, std::min(kMaxTop, vocab_size), &score.top) ||
        !read_int(env, object.Get("next"), "next", -1, vocab_size - 1, &score.next)) {
        return false;
    }
    if (static_cast<uint64_t>(tokens) * static_cast<uint64_t>(score.top) <= kMaxResultFloats) return true;
    throw_type(env, "score: tokens x top is too large; ask for smaller pieces.");
    return false;
}

bool read_sampler(Napi::Env env, Napi::Value value, const Config& config, StepJob& job, StepItem* item) {
    if (value.IsEmpty() || value.IsUndefined()) return !value.IsEmpty();
    const std::shared_ptr<SamplerState> state = unwrap_sampler(env, value, config.vocab_size);
    if (!state) return false;
    if (std::find(job.samplers.begin(), job.samplers.end(), state) != job.samplers.end()) {
        throw_type(env, "Every item needs a sampler of its own.");
        return false;
    }
    job.samplers.push_back(state);
    item->sampler = &state->sampler;
    return true;
}

bool read_item(Napi::Env env, Napi::Value value, const std::shared_ptr<ModelState>& model, const Config& config,
               StepJob& job) {
    Napi::Object object;
    if (!read_object(env, value, "item", &object)) return false;
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, object.Get("session"));
    if (!state) return false;
    if (state->owner != model || std::find(job.sessions.begin(), job.sessions.end(), state) != job.sessions.end()) {
        throw_type(env, "Every item needs a session of its own, and one of this model.");
        return false;
    }
    auto item = std::make_unique<StepItem>();
    int32_t logits = 0, hidden = 0;
    if (!check_usable(env, *state) || !read_tokens(env, object.Get("tokens"), config, *state, item.get()) ||
        !read_int(env, object.Get("logits"), "logits", 0, 2, &logits) ||
        (has(object, "ends") && !read_bool(env, object.Get("ends"), "ends", &item->ends)) ||
        (has(object, "hidden") && !read_int(env, object.Get("hidden"), "hidden", 0, 2, &hidden)) ||
        !read_sampler(env, object.Get("sampler"), config, job, item.get()) ||
        !read_score(env, object.Get("score"), config.vocab_size, item.get())) {
        return false;
    }
    item->logits = static_cast<WantedLogits>(logits);
    item->hidden = static_cast<WantedHidden>(hidden);
    item->session = state->session.get();
    item->stop = &state->stop;
    if (item->logits == WantedLogits::all &&
        item->tokens.size() * static_cast<uint64_t>(config.vocab_size) > kMaxResultFloats) {
        throw_type(env, "logits: tokens x vocab_size is too large; ask for smaller pieces.");
        return false;
    }
    job.sessions.push_back(state);
    job.items.push_back(std::move(item));
    return true;
}

// Reading the arguments may have run a script's getters, and those may have disposed or used anything.
bool still_usable(Napi::Env env, const ModelState& model, const StepJob& job) {
    if (!model.engine) {
        throw_status(env, error("ERR_DISPOSED", "The model has been disposed."));
        return false;
    }
    for (const auto& sampler : job.samplers) {
        if (!check_usable(env, *sampler)) return false;
    }
    for (size_t i = 0; i < job.sessions.size(); ++i) {
        const SessionState& state = *job.sessions[i];
        if (!check_usable(env, state)) return false;
        const auto wanted = static_cast<int64_t>(job.items[i]->tokens.size()) + state.length;
        if (wanted > state.session->capacity()) {
            throw_status(env, error("ERR_CONTEXT_FULL", "The session changed while the step was being prepared."));
            return false;
        }
    }
    return true;
}

bool read_step(Napi::Env env, const Napi::CallbackInfo& call, StepJob& job) {
    const std::shared_ptr<ModelState> model = unwrap<ModelState>(env, call[0]);
    if (!model || !still_usable(env, *model, job)) return false;
    job.engine = model->engine;
    const Config& config = job.engine->model->config;
    Napi::Object options;
    const Napi::Value list = call[1];
    if (!list.IsArray() || list.As<Napi::Array>().Length() < 1 || list.As<Napi::Array>().Length() > kMaxItems) {
        throw_type(env, "items must be an array of 1 to 1024 items.");
        return false;
    }
    const auto array = list.As<Napi::Array>();
    const uint32_t count = array.Length();
    for (uint32_t i = 0; i < count; ++i) {
        if (!read_item(env, array.Get(i), model, config, job)) return false;
    }
    if (!read_object(env, call[2], "options", &options) ||
        !read_int(env, options.Get("chunk"), "chunk", 0, kMaxStepTokens, &job.request.chunk)) {
        return false;
    }
    job.cancel = read_cancel(env, options);
    return job.cancel && still_usable(env, *model, job);
}

// ---- results -----------------------------------------------------------------------------------------
Napi::Value item_value(Napi::Env env, const StepItem& item, double step_ms) {
    Napi::Object result = Napi::Object::New(env);
    result.Set("processed", item.processed);
    result.Set("stepMs", step_ms);
    if (item.rows.size() > 0) {
        result.Set("logits", copy_out<Napi::Float32Array>(env, item.rows));
    }
    if (item.hidden != WantedHidden::none && item.all_processed()) {
        result.Set("hidden", copy_out<Napi::Float64Array>(env, item.hidden_state));
    }
    if (item.sampler && item.all_processed()) {
        result.Set("id", item.choices.front().id);
        result.Set("logprob", item.choices.front().logprob);
    }
    if (item.wants_scores) {
        Napi::Object scores = Napi::Object::New(env);
        scores.Set("logprobs", copy_out<Napi::Float32Array>(env, item.scores.logprobs));
        scores.Set("top_ids", copy_out<Napi::Int32Array>(env, item.scores.top_ids));
        scores.Set("top_logprobs", copy_out<Napi::Float32Array>(env, item.scores.top_logprobs));
        result.Set("scores", scores);
    }
    return result;
}

Napi::Value StepJob::result(Napi::Env env) {
    Napi::Array results = Napi::Array::New(env, items.size());
    for (size_t i = 0; i < items.size(); ++i) {
        results.Set(static_cast<uint32_t>(i), item_value(env, *items[i], step_ms));
    }
    return results;
}

}  // namespace

Napi::Value step_call(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto job = std::make_unique<StepJob>(env);
    if (env.IsExceptionPending() || !read_step(env, call, *job)) return {};
    job->take();
    return Addon::of(env).post(env, std::move(job));
}

}  // namespace onebit
