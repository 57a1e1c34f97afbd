// generate(model, item, options): token after token without a way through JavaScript in between. What was chosen is told
// while more is computed.
#include <algorithm>
#include <chrono>
#include <utility>

#include "napi/fields.h"
#include "napi/objects.h"

namespace onebit {

namespace {

// A consumer that falls behind (it writes to a slow terminal, say) finds this much computed, and no more: whatever lies
// ahead of a consumer that leaves was for nothing.
constexpr double kAheadMs = 20;
constexpr int64_t kMostAhead = 48;

// JavaScript needs about 100 us of a core for each time it is woken, whatever it is told, and all cores are computing. So
// tokens that follow each other faster than this are told together; nobody sees the difference.
constexpr auto kTellTime = std::chrono::milliseconds(8);
constexpr size_t kMostTold = 16;

constexpr int32_t kMaxTop = 100;

class GenerateJob : public PromiseJob {
public:
    explicit GenerateJob(Napi::Env env) : PromiseJob(env), addon_(Addon::of(env)) {}

    void take() {
        session->take();
        if (sampler) sampler->busy = true;
    }
    // One token, so that jobs of other sessions come in between. The first time: the prompt, and one token.
    void run(Pool& pool) override;
    bool again(bool others) override {
        const bool more = going_on_ && !session->stop.load(std::memory_order_relaxed);
        if (others || !more) tell();
        return more;
    }
    void ended(Napi::Env) override {
        session->give_back();
        if (sampler) sampler->busy = false;
        engine.reset();
    }
    // Whether it ended because the consumer was behind.
    Napi::Value result(Napi::Env env) override { return Napi::Boolean::New(env, behind_); }

    std::shared_ptr<Engine> engine;
    std::shared_ptr<SessionState> session;
    std::shared_ptr<SamplerState> sampler;  // null: only compute the tokens
    StepItem item;
    StepRequest request;
    int64_t most = 0;                     // tokens to make
    std::vector<int32_t> stop_tokens;
    Napi::FunctionReference on_token;

private:
    using Clock = std::chrono::steady_clock;
    struct Made {
        Choice choice;
        Scores scores;
        double ms;
    };

    void decide(double ms);
    void tell();

    Addon& addon_;
    bool going_on_ = false, behind_ = false;
    std::vector<Made> untold_;
    Clock::time_point told_{};  // when something was last told
};

void GenerateJob::run(Pool& pool) {
    going_on_ = false;
    pool.resize(engine->threads);
    request.cancel = cancel.get();
    request.items = {&item};
    const auto start = Clock::now();
    status = run_step(*engine->model, pool, engine->scratch, engine->candidates, engine->pace, request);
    const auto end = Clock::now();
    if (!status.ok() || !item.sampler || !item.all_processed()) return;
    status = item.sampled;
    if (!status.ok()) return;
    --most;
    ++sampler->made;
    const double ms = std::chrono::duration<double, std::milli>(end - start).count();
    untold_.push_back({item.choice, std::exchange(item.scores, {}), ms});
    decide(ms);
    if (end - told_ < kTellTime && untold_.size() < kMostTold) return;
    told_ = end;
    tell();
}

// Whether the token that was chosen is computed too.
void GenerateJob::decide(double ms) {
    const int32_t id = item.choice.id;
    if (most == 0 || session->session->length() == session->session->capacity() ||
        std::find(stop_tokens.begin(), stop_tokens.end(), id) != stop_tokens.end()) {
        return;
    }
    item.tokens.assign(1, id);
    item.processed = 0;
    item.score.from = 0;
    const auto ahead = std::clamp(static_cast<int64_t>(kAheadMs / std::max(ms, 0.01)), int64_t{1}, kMostAhead);
    behind_ = sampler->made - sampler->taken.load(std::memory_order_relaxed) > ahead;
    going_on_ = !behind_;
}

// Hands tokens over. What is posted runs before the job is destroyed (Addon::drain).
void GenerateJob::tell() {
    if (untold_.empty()) return;
    addon_.post_call([this, told = std::exchange(untold_, {})](Napi::Env env) {
        for (const Made& made : told) {
            const Napi::HandleScope scope(env);
            Napi::Value ids = env.Undefined(), logprobs = env.Undefined();
            if (!made.scores.top_ids.empty()) {
                ids = copy_out<Napi::Int32Array>(env, made.scores.top_ids);
                logprobs = copy_out<Napi::Float32Array>(env, made.scores.top_logprobs);
            }
            on_token.Call({Napi::Number::New(env, made.choice.id), Napi::Number::New(env, made.choice.logprob),
                           Napi::Number::New(env, made.ms), ids, logprobs});
        }
    });
}

// ---- arguments ---------------------------------------------------------------------------------------
bool read_sampling(Napi::Env env, Fields& fields, const Config& config, GenerateJob& job) {
    const Napi::Value value = fields.get("sampler");
    if (value.IsEmpty() || value.IsUndefined()) return !value.IsEmpty();
    job.sampler = unwrap_sampler(env, value, config.vocab_size);
    if (!job.sampler) return false;
    int32_t top = 0;
    uint64_t most = 0;
    fields.integer("most", 1, kMaxSafeInteger, &most);
    fields.integer("top", 0, std::min(kMaxTop, config.vocab_size), &top);
    fields.array("stop_tokens", static_cast<size_t>(config.vocab_size), &job.stop_tokens);
    if (!fields.ok()) return false;
    job.most = static_cast<int64_t>(most);
    job.item.sampler = &job.sampler->sampler;
    job.item.wants_scores = top > 0;
    job.item.score.from = static_cast<int>(job.item.tokens.size()) - 1;
    job.item.score.top = top;
    job.item.score.next = -1;
    return true;
}

bool read_generation(Napi::Env env, const Napi::CallbackInfo& call, GenerateJob& job) {
    const std::shared_ptr<ModelState> model = unwrap<ModelState>(env, call[0]);
    if (!model) return false;
    Fields fields(env, call[1], "item");
    Fields options(env, call[2], "options");
    if (!fields.ok() || !options.ok()) return false;
    job.session = unwrap<SessionState>(env, fields.get("session"));
    if (!job.session) return false;
    if (job.session->owner != model) {
        throw_type(env, "The session is one of another model.");
        return false;
    }
    const Napi::Value on_token = options.get("onToken");
    if (!on_token.IsFunction()) {
        throw_type(env, "onToken must be a function.");
        return false;
    }
    job.on_token = Napi::Persistent(on_token.As<Napi::Function>());
    options.integer("chunk", 0, kMaxStepTokens, &job.request.chunk);
    if (!options.ok()) return false;
    job.cancel = read_cancel(env, call[2].As<Napi::Object>());
    const Napi::Value tokens = fields.get("tokens");
    if (!job.cancel || tokens.IsEmpty()) return false;
    if (!model->engine) {
        throw_status(env, error("ERR_DISPOSED", "The model has been disposed."));
        return false;
    }
    job.engine = model->engine;
    const Config& config = job.engine->model->config;
    if (!check_usable(env, *job.session) || !read_tokens(env, tokens, config, *job.session, &job.item)) return false;
    return read_sampling(env, fields, config, job);
}

// Reading the arguments may have run a script's getters, and those may have disposed or used anything.
bool still_usable(Napi::Env env, const GenerateJob& job) {
    const SessionState& state = *job.session;
    if (!check_usable(env, state) || (job.sampler && !check_usable(env, *job.sampler))) return false;
    if (static_cast<int64_t>(job.item.tokens.size()) + state.length <= state.session->capacity()) return true;
    throw_status(env, error("ERR_CONTEXT_FULL", "The session changed while the generation was being prepared."));
    return false;
}

}  // namespace

Napi::Value generate_call(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    auto job = std::make_unique<GenerateJob>(env);
    if (env.IsExceptionPending() || !read_generation(env, call, *job) || !still_usable(env, *job)) return {};
    job->item.session = job->session->session.get();
    job->item.stop = &job->session->stop;
    job->take();
    return Addon::of(env).post(env, std::move(job));
}

}  // namespace onebit
