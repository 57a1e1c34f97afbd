// generate(model, item, options): the arguments of a generation, and who is told of its tokens.
#include <algorithm>
#include <utility>

#include "napi/fields.h"
#include "napi/objects.h"

namespace onebit {

namespace {

constexpr int32_t kMaxTop = 100;

class GenerateJob final : public Generation, public Settling {
public:
    explicit GenerateJob(Napi::Env env) : Settling(env), addon_(Addon::of(env)) {}
    Settling* settling() override { return this; }

    void take() {
        session->take();
        if (sampler) sampler->busy = true;
        if (!draft) return;
        draft->take();
        draft_ledger = sampler->draft_ledger.get();
        drafter = std::make_unique<Drafter>(draft->owner->engine, draft->session.get(), &draft->stop, draft_ledger->always());
    }
    void ended(Napi::Env env, Status&) override {
        session->give_back(env);
        if (draft) {
            drafter->settle(sampler->guesser->said());
            draft->give_back(env);
            drafter.reset();
        }
        if (sampler) sampler->busy = false;
        engine.reset();
    }
    Napi::Value result(Napi::Env env) override {
        Napi::Object made = Napi::Object::New(env);
        made.Set("behind", behind());
        made.Set("steps", static_cast<double>(steps()));
        return made;
    }

    std::shared_ptr<SessionState> session;
    std::shared_ptr<SamplerState> sampler;  // null: only compute the tokens
    std::shared_ptr<SessionState> draft;    // null: no drafter guesses
    Napi::FunctionReference on_token;

private:
    // What is posted runs before the job is destroyed (Addon::drain).
    void tell(std::vector<Made> made) override {
        addon_.post_call([this, told = std::move(made)](Napi::Env env) {
            for (const Made& one : told) tell_one(env, one);
        });
    }

    void tell_one(Napi::Env env, const Made& made) {
        const Napi::HandleScope scope(env);
        Napi::Value ids = env.Undefined(), logprobs = env.Undefined();
        if (!made.scores.top_ids.empty()) {
            ids = copy_out<Napi::Int32Array>(env, made.scores.top_ids);
            logprobs = copy_out<Napi::Float32Array>(env, made.scores.top_logprobs);
        }
        on_token.Call({Napi::Number::New(env, made.choice.id), Napi::Number::New(env, made.choice.logprob),
                       Napi::Number::New(env, made.ms), ids, logprobs});
    }

    Addon& addon_;
};

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
    job.progress = &job.sampler->progress;
    job.guesser = job.sampler->guesser.get();
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

// A draft that was disposed guesses nothing any more, and one that is in use nothing now: the same tokens come without it.
void use_draft(GenerateJob& job) {
    if (!job.guesser || !job.sampler->draft) return;
    const SessionState& draft = *job.sampler->draft;
    if (!draft.disposed && !draft.busy && draft.owner->engine && job.sampler->draft != job.session) job.draft = job.sampler->draft;
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
    use_draft(*job);
    job->take();
    return Addon::of(env).post(env, std::move(job));
}

}  // namespace onebit
