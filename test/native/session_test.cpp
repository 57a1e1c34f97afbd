// A session's cache: every layer, head and position has a place of its own, where the kernels' contract (KvHead) says, and a
// copy of a session has the same.
#include "run/session.h"

#include <memory>
#include <string>
#include <vector>

#include "check.h"
#include "kernels/math.h"
#include "system/pool.h"
#include "made_model.h"
#include "no_memory.h"
#include "probes/random_model.h"

using namespace onebit;

namespace {

constexpr int kHeadDim = 32, kLayers = 2, kHeads = 3;

std::shared_ptr<Model> small_model() {
    Config config;
    config.vocab_size = 64;
    config.dim = kHeadDim * kHeads;
    config.hidden_dim = 128;
    config.n_layers = kLayers;
    config.n_heads = config.n_kv_heads = kHeads;
    config.head_dim = kHeadDim;
    config.context_length = 1024;
    Pool pool;
    RandomOptions options;
    const char* why = nullptr;
    options.kernels = choose_kernels("scalar", &why);
    std::shared_ptr<Model> model;
    CHECK(random_model(config, made::kinds_of(config, {}, {}), options, pool, &model).ok());
    return model;
}

// Small whole numbers, so that every kind of cache holds them exactly, int8 with a scale of 1: the largest is 127.
float element(bool is_key, int layer, int head, int position, int d) {
    if (d == 0) return 127;
    return static_cast<float>((layer * 7 + head * 31 + position * 13 + d * 3 + (is_key ? 0 : 50)) % 127);
}

void fill(Session& session, int from, int to) {
    CHECK(session.grow(to).ok());
    for (int position = from; position < to; ++position) {
        for (int layer = 0; layer < kLayers; ++layer) {
            for (int head = 0; head < kHeads; ++head) {
                float k[kHeadDim], v[kHeadDim];
                for (int d = 0; d < kHeadDim; ++d) {
                    k[d] = element(true, layer, head, position, d);
                    v[d] = element(false, layer, head, position, d);
                }
                session.store(layer, head, position, k, v);
            }
        }
    }
    session.advance(to - from);
}

// The element as the kernels find it.
float element_in(const KvHead& head, bool is_key, int position, int d) {
    const auto chunk = static_cast<size_t>(position / kKvChunk), at = static_cast<size_t>(position % kKvChunk);
    const auto dim = static_cast<size_t>(kHeadDim), column = static_cast<size_t>(d);
    const size_t index = is_key ? (at / kKeyBlock * dim + column) * kKeyBlock + at % kKeyBlock : at * dim + column;
    const auto* rows = static_cast<const uint8_t*>(is_key ? head.k : head.v) + chunk * head.chunk_stride;
    switch (head.dtype) {
        case DType::f32: return reinterpret_cast<const float*>(rows)[index];
        case DType::f16: return f32_from_f16(reinterpret_cast<const uint16_t*>(rows)[index]);
        default: break;
    }
    const auto* scales = reinterpret_cast<const uint8_t*>(is_key ? head.k_scale : head.v_scale) + chunk * head.scale_stride;
    return static_cast<float>(reinterpret_cast<const int8_t*>(rows)[index]) * reinterpret_cast<const float*>(scales)[at];
}

bool holds(const Session& session, int positions) {
    for (int layer = 0; layer < kLayers; ++layer) {
        for (int h = 0; h < kHeads; ++h) {
            const KvHead head = session.kv_head(layer, h);
            for (int position = 0; position < positions; ++position) {
                for (int d = 0; d < kHeadDim; ++d) {
                    if (element_in(head, true, position, d) != element(true, layer, h, position, d)) return false;
                    if (element_in(head, false, position, d) != element(false, layer, h, position, d)) return false;
                }
            }
        }
    }
    return true;
}

// Memory is taken a chunk at a time, as positions come.
void grows_as_it_is_used(const std::shared_ptr<Model>& model) {
    std::unique_ptr<Session> session, empty;
    if (!CHECK(Session::create(model, 1000, DType::f16, &session).ok())) return;
    CHECK(session->bytes() == 0 && session->capacity_bytes() > 0);
    uint64_t before = 0;
    for (int positions = 1; positions <= 1000; ++positions) {
        CHECK(session->grow(positions).ok());
        CHECK((session->bytes() > before) == (positions % kKvChunk == 1));
        before = session->bytes();
    }
    CHECK(before == session->capacity_bytes());
    CHECK(session->grow(3).ok() && session->bytes() == before);
    CHECK(Session::create(model, 300, DType::f16, &empty).ok() && empty->copy_from(*session, 0).ok() && empty->bytes() == 0);
}

#if defined(ONEBIT_CAN_REFUSE_MEMORY)
// A cache that cannot grow is an error that names the context, and the session goes on with what it has.
void refused_memory_leaves_the_session_usable(const std::shared_ptr<Model>& model) {
    if (!NoMemory::possible(RLIMIT_DATA)) return check::skip("a cache that cannot grow", "this system ignores limits of memory");
    std::unique_ptr<Session> session;
    if (!CHECK(Session::create(model, 1024, DType::f32, &session).ok())) return;
    fill(*session, 0, kKvChunk);
    Status status;
    {
        const NoMemory none(RLIMIT_DATA);
        status = session->grow(kKvChunk + 1);
    }
    CHECK(!status.ok() && std::string(status.code) == "ERR_OUT_OF_MEMORY");
    CHECK(status.message.find("context") != std::string::npos);
    CHECK(session->length() == kKvChunk && holds(*session, kKvChunk));
    fill(*session, kKvChunk, kKvChunk + 5);
    CHECK(holds(*session, kKvChunk + 5));
}
#endif

}  // namespace

int main() {
    const std::shared_ptr<Model> model = small_model();
    for (const DType dtype : {DType::f16, DType::f32, DType::q8}) {
        std::unique_ptr<Session> session, copy;
        if (!CHECK(Session::create(model, 700, dtype, &session).ok())) continue;
        fill(*session, 0, kKvChunk + 1);
        CHECK(holds(*session, kKvChunk + 1));
        fill(*session, kKvChunk + 1, 700);
        CHECK(holds(*session, 700));
        session->rewind(kKvChunk + 40);
        if (!CHECK(Session::create(model, kKvChunk + 44, dtype, &copy).ok())) continue;
        CHECK(copy->copy_from(*session, kKvChunk + 40).ok());
        CHECK(copy->length() == kKvChunk + 40);
        CHECK(holds(*copy, kKvChunk + 40));
        fill(*copy, kKvChunk + 40, kKvChunk + 44);
        CHECK(holds(*copy, kKvChunk + 44));
        CHECK(holds(*session, 700));
    }
    grows_as_it_is_used(model);
#if defined(ONEBIT_CAN_REFUSE_MEMORY)
    refused_memory_leaves_the_session_usable(model);
#else
    check::skip("a cache that cannot grow", "only Linux without sanitizers can refuse memory here");
#endif
    return check::summary();
}
