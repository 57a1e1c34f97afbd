// NativeSession as JavaScript sees it.
#include <algorithm>
#include <utility>
#include <vector>

#include "napi/objects.h"

namespace onebit {

namespace {

Napi::Value session_length(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    return state ? Napi::Number::New(call.Env(), state->length) : Napi::Value();
}

Napi::Value session_capacity(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    return state ? Napi::Number::New(call.Env(), state->session ? state->session->capacity() : 0) : Napi::Value();
}

Napi::Value session_bytes(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    if (!state) return {};
    return Napi::Number::New(call.Env(), state->session ? static_cast<double>(state->session->capacity_bytes()) : 0);
}

Napi::Value session_used_bytes(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    if (!state) return {};
    return Napi::Number::New(call.Env(), static_cast<double>(state->session ? state->told_bytes : 0));
}

// Bytes of the cache, on the worker: a chunk of a large model is more than a hundred megabytes.
class CopyJob : public Job, public Settling {
public:
    CopyJob(Napi::Env env, std::shared_ptr<SessionState> state) : Settling(env), state_(std::move(state)) { state_->take(); }
    Settling* settling() final { return this; }
    void ended(Napi::Env env, Status& status) final {
        state_->give_back(env);
        if (state_->disposed) status = error("ERR_DISPOSED", "The session was disposed while its cache was being copied.");
    }

protected:
    Session& session() const { return *state_->session; }

private:
    std::shared_ptr<SessionState> state_;
};

// Straight into the array that JavaScript gets. No script has seen it yet, so that it cannot be detached, and its memory
// stays where it is.
template <auto Read>
class ReadJob final : public CopyJob {
public:
    ReadJob(Napi::Env env, const std::shared_ptr<SessionState>& state, int index, Napi::Uint8Array to)
        : CopyJob(env, state), index_(index), bytes_(to.Data()), to_(Napi::Persistent(to.As<Napi::Object>())) {}
    void run(Pool&) override { (session().*Read)(index_, bytes_); }
    Napi::Value result(Napi::Env) override { return to_.Value(); }

private:
    const int index_;
    unsigned char* bytes_;
    Napi::ObjectReference to_;
};

// `at`: a chunk's index, or a state's length.
template <auto Write>
class WriteJob final : public CopyJob {
public:
    WriteJob(Napi::Env env, const std::shared_ptr<SessionState>& state, int at, std::vector<unsigned char> bytes)
        : CopyJob(env, state), at_(at), bytes_(std::move(bytes)) {}
    void run(Pool&) override { status = (session().*Write)(at_, bytes_.data()); }
    Napi::Value result(Napi::Env env) override { return env.Undefined(); }

private:
    const int at_;
    std::vector<unsigned char> bytes_;
};

template <auto Read>
Napi::Value post_read(Napi::Env env, const std::shared_ptr<SessionState>& state, int index, size_t bytes) {
    const Napi::Uint8Array to = Napi::Uint8Array::New(env, bytes);
    if (env.IsExceptionPending()) return {};
    return Addon::of(env).post(env, std::make_unique<ReadJob<Read>>(env, state, index, to));
}

// `wanted` bytes, no more and no fewer, of what messages call `what`.
template <auto Write>
Napi::Value post_write(Napi::Env env, const std::shared_ptr<SessionState>& state, int at, Napi::Value from, size_t wanted,
                       const char* what) {
    std::vector<unsigned char> bytes;
    if (!read_array(env, from, "bytes", wanted, &bytes)) return {};
    if (bytes.size() != wanted) {
        throw_type(env, "bytes has " + std::to_string(bytes.size()) + " bytes, " + what + " of this session " + std::to_string(wanted) + ".");
        return {};
    }
    return Addon::of(env).post(env, std::make_unique<WriteJob<Write>>(env, state, at, std::move(bytes)));
}

// holdStates(most)
Napi::Value session_hold_states(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t most = 0;
    if (!state || !check_usable(env, *state) || !read_int(env, call[0], "most", 0, kMaxContext, &most)) return {};
    const std::vector<int> lengths = state->session->hold_states(most);
    Napi::Int32Array out = Napi::Int32Array::New(env, lengths.size());
    if (env.IsExceptionPending()) return {};
    std::copy(lengths.begin(), lengths.end(), out.Data());
    return out;
}

// readState(index)
Napi::Value session_read_state(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t index = 0;
    if (!state || !check_usable(env, *state)) return {};
    if (!read_int(env, call[0], "index", 0, state->session->held_states() - 1, &index)) return {};
    return post_read<&Session::read_state>(env, state, index, state->session->state_bytes());
}

// writeState(length, bytes)
Napi::Value session_write_state(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t length = 0;
    if (!state || !check_usable(env, *state)) return {};
    if (!read_int(env, call[0], "length", 1, state->session->capacity(), &length)) return {};
    return post_write<&Session::write_state>(env, state, length, call[1], state->session->state_bytes(), "a state");
}

// reachable(length)
Napi::Value session_reachable(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t length = 0;
    if (!state || !check_usable(env, *state) || !read_int(env, call[0], "length", 0, state->length, &length)) return {};
    return Napi::Number::New(env, state->session->reachable(length));
}

// mark()
Napi::Value session_mark(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    if (!state || !check_usable(env, *state)) return {};
    state->session->mark();
    return env.Undefined();
}

Napi::Value session_chunk_bytes(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    if (!state) return {};
    return Napi::Number::New(call.Env(), static_cast<double>(state->session ? state->session->chunk_bytes() : 0));
}

Napi::Value session_state_bytes(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    if (!state) return {};
    return Napi::Number::New(call.Env(), static_cast<double>(state->session ? state->session->state_bytes() : 0));
}

// readChunk(index)
Napi::Value session_read_chunk(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t index = 0;
    if (!state || !check_usable(env, *state)) return {};
    if (!read_int(env, call[0], "index", 0, state->session->used_chunks() - 1, &index)) return {};
    return post_read<&Session::read_chunk>(env, state, index, state->session->chunk_bytes());
}

// writeChunk(index, bytes)
Napi::Value session_write_chunk(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t index = 0;
    if (!state || !check_usable(env, *state)) return {};
    if (!read_int(env, call[0], "index", 0, state->session->most_chunks() - 1, &index)) return {};
    return post_write<&Session::write_chunk>(env, state, index, call[1], state->session->chunk_bytes(), "a chunk");
}

// restored(length)
Napi::Value session_restored(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t length = 0;
    if (!state || !check_usable(env, *state)) return {};
    if (!read_int(env, call[0], "length", 0, state->session->capacity(), &length)) return {};
    if (const Status status = state->session->restored(length); !status.ok()) {
        throw_status(env, status);
        return {};
    }
    state->length = length;
    return env.Undefined();
}

Napi::Value session_disposed(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    return state ? Napi::Boolean::New(call.Env(), state->disposed) : Napi::Value();
}

Napi::Value session_rewind(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t length = 0;
    if (!state || !check_usable(env, *state) || !read_int(env, call[0], "length", 0, state->length, &length)) return {};
    state->session->rewind(length);
    state->length = state->session->length();
    return env.Undefined();
}

// Copies on the worker: a long cache is hundreds of megabytes.
class ForkJob final : public Job, public Settling {
public:
    ForkJob(Napi::Env env, std::shared_ptr<SessionState> from, std::unique_ptr<Session> to, int length)
        : Settling(env), from_(std::move(from)), to_(std::move(to)), length_(length) {
        from_->take();
    }
    Settling* settling() override { return this; }
    void run(Pool&) override { status = to_->copy_from(*from_->session, length_); }
    void ended(Napi::Env env, Status& status) override {
        from_->give_back(env);
        if (from_->disposed) status = error("ERR_DISPOSED", "The session was disposed while it was being forked.");
    }
    Napi::Value result(Napi::Env env) override { return make_session(env, from_->owner, std::move(to_)); }

private:
    std::shared_ptr<SessionState> from_;
    std::unique_ptr<Session> to_;
    int length_;
};

Napi::Value session_fork(const Napi::CallbackInfo& call) {
    const Napi::Env env = call.Env();
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(env, call.This());
    int32_t length = 0;
    if (!state || !check_usable(env, *state) || !read_int(env, call[0], "length", 0, state->length, &length)) return {};
    const Session& from = *state->session;
    ModelState& owner = *state->owner;
    std::unique_ptr<Session> to;
    Status status;
    if (!owner.makes_room(from.capacity_bytes())) {
        status = error("ERR_MEMORY_LIMIT", "A fork of " + std::to_string(from.capacity_bytes()) + " bytes beside the " +
                                               std::to_string(owner.used_bytes()) +
                                               " bytes in use is more than the limit of " +
                                               std::to_string(owner.memory_limit) + " bytes.");
    } else {
        status = Session::create(owner.engine->model, from.capacity(), from.kv_dtype(), &to);
    }
    if (!status.ok()) {
        throw_status(env, status);
        return {};
    }
    return Addon::of(env).post(env, std::make_unique<ForkJob>(env, state, std::move(to), length));
}

Napi::Value session_dispose(const Napi::CallbackInfo& call) {
    const std::shared_ptr<SessionState> state = unwrap<SessionState>(call.Env(), call.This());
    if (!state) return {};
    state->dispose();
    state->forget(call.Env());
    return call.Env().Undefined();
}

}  // namespace

Napi::Function session_class(Napi::Env env) {
    return define_class(env, SessionState::kName, native_callback<wrap_constructing<SessionState>>,
                        {method<session_rewind>("rewind"), method<session_fork>("fork"),
                         method<session_read_chunk>("readChunk"), method<session_write_chunk>("writeChunk"),
                         method<session_restored>("restored"), method<session_hold_states>("holdStates"),
                         method<session_read_state>("readState"), method<session_write_state>("writeState"),
                         method<session_reachable>("reachable"), method<session_mark>("mark"),
                         getter<session_chunk_bytes>("chunkBytes"), getter<session_state_bytes>("stateBytes"),
                         method<session_dispose>("dispose"),
                         getter<session_disposed>("disposed"), getter<session_length>("length"),
                         getter<session_capacity>("capacity"), getter<session_bytes>("bytes"),
                         getter<session_used_bytes>("usedBytes")});
}

}  // namespace onebit
