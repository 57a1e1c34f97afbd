#include "session.h"

#include <cstring>

#include "arena.h"

namespace onebit {

namespace {

size_t element_bytes(DType kv) { return kv == DType::f16 ? 2 : 4; }

}  // namespace

Status Session::create(std::shared_ptr<Model> model, int capacity, DType kv, std::unique_ptr<Session>* out) {
    const Config& config = model->config;
    if (capacity < 1 || capacity > config.context_length) {
        return error("ERR_BAD_OPTION", "context: " + std::to_string(capacity) + " is not within 1 to " +
                                           std::to_string(config.context_length) + ", the model's own length.");
    }
    std::unique_ptr<Session> session(new Session());
    session->capacity_ = capacity;
    session->kv_ = kv;
    session->model_ = std::move(model);
    // layers <= 2^10, capacity <= 2^22, kv_dim <= 2^16, element 4 and K and V 2: below 2^52.
    session->bytes_ = uint64_t{2} * static_cast<uint64_t>(config.n_layers) * static_cast<uint64_t>(config.n_kv_heads) *
                      session->head_bytes();
    if (session->bytes_ <= SIZE_MAX) {
        session->memory_ = static_cast<unsigned char*>(allocate_pages(static_cast<size_t>(session->bytes_), false));
    }
    if (!session->memory_) {
        return error("ERR_OUT_OF_MEMORY", "The system has no " + std::to_string(session->bytes_ >> 20) +
                                              " MiB for a KV cache of " + std::to_string(capacity) +
                                              " positions; ask for a smaller context.");
    }
    *out = std::move(session);
    return {};
}

Session::~Session() { free_pages(memory_, static_cast<size_t>(bytes_)); }

size_t Session::head_bytes() const {
    return static_cast<size_t>(capacity_) * static_cast<size_t>(model_->config.head_dim) * element_bytes(kv_);
}

void Session::rewind(int length) {
    if (length >= 0 && length < length_) length_ = length;
}

void Session::copy_from(const Session& other) {
    const size_t heads = static_cast<size_t>(model_->config.n_layers) * static_cast<size_t>(model_->config.n_kv_heads);
    const size_t row_bytes = static_cast<size_t>(model_->config.head_dim) * element_bytes(kv_);
    const size_t filled = static_cast<size_t>(other.length_) * row_bytes;
    for (size_t part = 0; part < 2 * heads; ++part) {
        std::memcpy(memory_ + part * head_bytes(), other.memory_ + part * other.head_bytes(), filled);
    }
    length_ = other.length_;
}

KvHead Session::kv_head(int layer, int head) const {
    const size_t index = static_cast<size_t>(layer) * static_cast<size_t>(model_->config.n_kv_heads) +
                         static_cast<size_t>(head);
    const unsigned char* k = memory_ + 2 * index * head_bytes();
    return {k, k + head_bytes(), kv_};
}

void Session::store(int layer, int head, int position, const float* k, const float* v) {
    const int head_dim = model_->config.head_dim;
    const KvHead cache = kv_head(layer, head);
    const size_t offset = static_cast<size_t>(position) * static_cast<size_t>(head_dim) * element_bytes(kv_);
    // The cache is this session's own memory; KvHead is const because the kernels only read it.
    auto* k_row = static_cast<unsigned char*>(const_cast<void*>(cache.k)) + offset;
    auto* v_row = static_cast<unsigned char*>(const_cast<void*>(cache.v)) + offset;
    if (kv_ == DType::f16) {
        model_->kernels->f32_to_f16(reinterpret_cast<uint16_t*>(k_row), k, head_dim);
        model_->kernels->f32_to_f16(reinterpret_cast<uint16_t*>(v_row), v, head_dim);
    } else {
        std::memcpy(k_row, k, static_cast<size_t>(head_dim) * sizeof(float));
        std::memcpy(v_row, v, static_cast<size_t>(head_dim) * sizeof(float));
    }
}

}  // namespace onebit
