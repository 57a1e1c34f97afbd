// NativeSampler: chooses tokens, here and now from given logits or on the worker for step() and generate().
#include <algorithm>
#include <cmath>
#include <utility>

#include "napi/fields.h"
#include "napi/objects.h"

namespace onebit {

bool check_usable(Napi::Env env, const SamplerState& state) {
    if (state.busy) throw_status(env, error("ERR_BUSY", "The sampler is in the middle of something else."));
    return !state.busy;
}

std::shared_ptr<SamplerState> unwrap_sampler(Napi::Env env, Napi::Value value, int32_t vocab_size) {
    std::shared_ptr<SamplerState> state = unwrap<SamplerState>(env, value);
    if (!state || state->vocab_size == vocab_size) return state;
    throw_type(env, "The sampler is for a vocabulary of " + std::to_string(state->vocab_size) + ", the model's is " +
                        std::to_string(vocab_size) + ".");
    return nullptr;
}

namespace {

bool read_bias(Napi::Env env, Fields& fields, int32_t vocab_size, Shortlist* out) {
    const auto most = static_cast<size_t>(vocab_size);
    fields.array("bias_ids", most, &out->bias_ids);
    fields.array("bias_values", most, &out->bias_values);
    if (!fields.ok()) return false;
    const auto allowed = [](float x) { return x <= FLT_MAX; };  // not NaN, not +infinity
    if (out->bias_ids.size() != out->bias_values.size() ||
        !std::all_of(out->bias_values.begin(), out->bias_values.end(), allowed)) {
        throw_type(env, "bias_ids and bias_values must be of the same length, values finite or -Infinity.");
        return false;
    }
    return check_ids(env, out->bias_ids, vocab_size, "bias_ids");
}

// A session of a model that can guess: of this vocabulary, and one that goes back to where a guess was wrong.
bool read_draft(Napi::Env env, Napi::Value value, int32_t vocab_size, SamplerState* state) {
    if (value.IsEmpty() || value.IsUndefined()) return !value.IsEmpty();
    state->draft = unwrap<SessionState>(env, value);
    if (!state->draft) return false;
    const auto& session = state->draft->session;
    if (!session || (session->model().config.vocab_size == vocab_size && session->state_bytes() == 0)) return true;
    throw_type(env, "The draft is a session of a model with another vocabulary, or with layers that have states.");
    return false;
}

// { said, most, always, draft }, or undefined.
bool read_guesses(Napi::Env env, Napi::Value value, int32_t vocab_size, SamplerState* state) {
    if (value.IsEmpty() || value.IsUndefined()) return !value.IsEmpty();
    Fields fields(env, value, "guesses");
    std::vector<int32_t> said;
    int32_t most = 0;
    bool always = false;
    fields.array("said", static_cast<size_t>(kMaxContext), &said);
    fields.integer("most", 1, Guesser::kMost, &most);
    fields.boolean("always", &always);
    if (!fields.ok() || !check_ids(env, said, vocab_size, "said")) return false;
    if (!read_draft(env, fields.get("draft"), vocab_size, state)) return false;
    if (state->draft) state->draft_ledger = std::make_unique<Ledger>(most, always);
    state->guesser = std::make_unique<Guesser>(std::move(said), most, always);
    return true;
}

std::shared_ptr<SamplerState> read_sampler(Napi::Env env, Napi::Value value) {
    Fields fields(env, value, "options");
    SamplingOptions options;
    int32_t vocab_size = 0;
    uint64_t seed_high = 0;
    std::vector<int32_t> recent;
    fields.integer("vocab_size", 1, kMaxVocab, &vocab_size);
    fields.number("temperature", 0, DBL_MAX, &options.temperature);
    fields.integer("top_k", 0, INT32_MAX, &options.top_k);
    fields.number("top_p", 0, 1, &options.top_p);
    fields.number("min_p", 0, 1, &options.min_p);
    fields.integer("first", 1, INT32_MAX, &options.first);
    fields.integer("repeat_last_n", 0, INT32_MAX, &options.repeat_last_n);
    fields.number("repeat_penalty", FLT_MIN, FLT_MAX, &options.changes.repeat_penalty);
    fields.number("presence_penalty", &options.changes.presence_penalty);
    fields.number("frequency_penalty", &options.changes.frequency_penalty);
    fields.integer("seed_low", 0, UINT32_MAX, &options.seed);
    fields.integer("seed_high", 0, UINT32_MAX, &seed_high);
    fields.array("recent", static_cast<size_t>(kMaxContext), &recent);
    options.seed |= seed_high << 32;
    if (!fields.ok() || !read_bias(env, fields, vocab_size, &options.changes)) return nullptr;
    if (!check_ids(env, recent, vocab_size, "recent")) return nullptr;
    auto state = std::make_shared<SamplerState>(std::move(options), std::move(recent), vocab_size);
    if (!read_guesses(env, fields.get("guesses"), vocab_size, state.get())) return nullptr;
    return state;
}

Napi::Value sampler_construct(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    if (!call.IsConstructCall()) {
        throw_type(env, "Sampler needs new.");
        return {};
    }
    std::shared_ptr<SamplerState> state = read_sampler(env, call[0]);
    if (!state) return {};
    wrap(env, call.This(), std::move(state));
    return call.This();
}

// choose(logits): here and now, from the logits of the whole vocabulary.
Napi::Value sampler_choose(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SamplerState> state = unwrap<SamplerState>(env, call.This());
    std::vector<float> logits;
    if (!state || !read_array(env, call[0], "logits", static_cast<size_t>(kMaxVocab), &logits)) return {};
    if (static_cast<int64_t>(logits.size()) != state->vocab_size) {
        throw_type(env, "logits must be of the size of the vocabulary.");
        return {};
    }
    if (!check_usable(env, *state)) return {};
    Choice choice;
    CandidateScratch scratch;
    Status status;
    if (std::any_of(logits.begin(), logits.end(), [](float x) { return !(x <= FLT_MAX); })) {
        status = error("ERR_BAD_LOGITS", "A logit is infinite or not a number: no token can be chosen.");
    } else {
        status = state->sampler.choose(row_kernels(), logits.data(), state->vocab_size, scratch, &choice);
    }
    if (!status.ok()) {
        throw_status(env, status);
        return {};
    }
    Napi::Object result = Napi::Object::New(env);
    result.Set("id", choice.id);
    result.Set("logprob", choice.logprob);
    result.Set("candidates", choice.candidates);
    return result;
}

Napi::Value sampler_took(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SamplerState> state = unwrap<SamplerState>(call.Env(), call.This());
    if (!state) return {};
    state->progress.taken.fetch_add(1, std::memory_order_relaxed);
    return call.Env().Undefined();
}

// allow(mask): a bit for each token, undefined for all.
Napi::Value sampler_allow(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SamplerState> state = unwrap<SamplerState>(env, call.This());
    std::vector<int32_t> mask;
    if (!state) return {};
    const size_t words = (static_cast<size_t>(state->vocab_size) + 31) / 32;
    if (!call[0].IsUndefined()) {
        if (!read_array(env, call[0], "mask", static_cast<size_t>(kMaxVocab), &mask)) return {};
        if (mask.size() != words) {
            throw_type(env, "mask has " + std::to_string(mask.size()) + " words of 32 bits; a vocabulary of " +
                                std::to_string(state->vocab_size) + " needs " + std::to_string(words) + ".");
            return {};
        }
    }
    // A job that waits for just this has it.
    if (!state->sampler.held() && !check_usable(env, *state)) return {};
    state->sampler.allow(std::move(mask));
    return env.Undefined();
}

// hold(): choices wait for allow().
Napi::Value sampler_hold(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SamplerState> state = unwrap<SamplerState>(call.Env(), call.This());
    if (!state || !check_usable(call.Env(), *state)) return {};
    state->sampler.hold();
    return call.Env().Undefined();
}

}  // namespace

Napi::Function sampler_class(Napi::Env env) {
    return define_class(env, SamplerState::kName, native_callback<sampler_construct>,
                        {method<sampler_choose>("choose"), method<sampler_took>("took"), method<sampler_allow>("allow"), method<sampler_hold>("hold")});
}

}  // namespace onebit
