// tokens -> embed -> layers -> logits. Prefill and decode are the same code with n tokens, and one step may
// carry the tokens of several sessions.
#pragma once

#include <functional>

#include "run/plan.h"

namespace onebit {

// Receives (vocab_size) logits or the (dim) hidden state of inputs[index], where that wants them; valid during the call;
// ascending index; on the calling thread.
using RowSink = std::function<void(int index, const float* row)>;

// Looked at between layers; true ends the step with the error kGivenUp and leaves the sessions as they were.
constexpr const char* kGivenUp = "ERR_ABORTED";
using GiveUp = std::function<bool()>;

// Runs n (1..kMaxStepTokens) tokens of sessions of one model. The tokens of one session are consecutive in inputs
// and continue it: their positions are session->length(), +1, ... Lengths are advanced only on success.
// Errors: ERR_TOKEN_RANGE, ERR_CONTEXT_FULL, ERR_OUT_OF_MEMORY, ERR_NOT_FINITE (a logit or a hidden state is NaN or infinite),
// kGivenUp. logits and hidden may be null where no input wants them.
Status forward(const Model& model, Pool& pool, Workspace& workspace, const TokenInput* inputs, int n,
               const RowSink& logits, const GiveUp& give_up = nullptr, const RowSink& hidden = nullptr);

}  // namespace onebit
