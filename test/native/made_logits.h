// What a model computes, for tests that make the same one in two ways.
#pragma once

#include <memory>
#include <vector>

#include "check.h"
#include "run/step.h"

namespace made {

// (5, vocab_size): of five tokens in one step, on two threads.
inline std::vector<float> logits_of(const std::shared_ptr<onebit::Model>& model, onebit::Pool& pool) {
    onebit::Engine engine;
    engine.model = model;
    engine.threads = pool.resize(2);
    std::unique_ptr<onebit::Session> session;
    CHECK(onebit::Session::create(model, 16, onebit::DType::f16, &session).ok());
    onebit::StepItem item;
    item.session = session.get();
    item.tokens = {3, 1, 4, 1, 5};
    item.logits = onebit::WantedLogits::all;
    onebit::StepRequest request;
    request.items = {&item};
    CHECK(run_step(engine, pool, request).ok());
    return item.rows;
}

}  // namespace made
