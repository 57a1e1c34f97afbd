#include "run/session.h"

#include <cstring>

#include "system/arena.h"

namespace onebit {

namespace {

// Keys go where their block wants them, kKeyBlock elements apart; values lie in a row. cache: of a chunk, `at` within it.
template <class T>
void scatter(const void* cache, bool is_key, size_t at, const T* row, int head_dim) {
    // The cache is the session's own memory; KvHead is const because the kernels only read it.
    T* to = static_cast<T*>(const_cast<void*>(cache));
    const auto dim = static_cast<size_t>(head_dim);
    if (!is_key) {
        std::memcpy(to + at * dim, row, dim * sizeof(T));
        return;
    }
    to += at / kKeyBlock * kKeyBlock * dim + at % kKeyBlock;
    for (size_t d = 0; d < dim; ++d) to[d * kKeyBlock] = row[d];
}

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
    session->bytes_ = session->chunk_bytes() * static_cast<uint64_t>(padded(capacity, kKvChunk) / kKvChunk);
    if (session->bytes_ <= SIZE_MAX) {
        session->memory_ = static_cast<unsigned char*>(allocate_pages(static_cast<size_t>(session->bytes_), true));
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

size_t Session::rows_bytes() const {
    return static_cast<size_t>(kKvChunk) * static_cast<size_t>(model_->config.head_dim) * element_bytes(kv_);
}

// One KV head of one layer, in one chunk: k, v and their scales.
size_t Session::head_bytes() const {
    const size_t scales = kv_ == DType::q8 ? kKvChunk * sizeof(float) : 0;
    return 2 * (rows_bytes() + scales);
}

size_t Session::chunk_bytes() const {
    return static_cast<size_t>(model_->config.n_layers) * kv_heads() * head_bytes();
}

void Session::rewind(int length) {
    if (length >= 0 && length < length_) length_ = length;
}

void Session::copy_from(const Session& other) {
    const size_t chunks = static_cast<size_t>(padded(other.length_, kKvChunk) / kKvChunk);
    std::memcpy(memory_, other.memory_, chunks * chunk_bytes());
    length_ = other.length_;
}

KvHead Session::kv_head(int layer, int head) const {
    const size_t index = static_cast<size_t>(layer) * kv_heads() + static_cast<size_t>(head);
    const unsigned char* k = memory_ + index * head_bytes();
    KvHead found{k, k + rows_bytes(), kv_, chunk_bytes()};
    if (kv_ == DType::q8) {
        found.k_scale = reinterpret_cast<const float*>(k + 2 * rows_bytes());
        found.v_scale = found.k_scale + kKvChunk;
        found.scale_stride = chunk_bytes();
    }
    return found;
}

void Session::store(int layer, int head, int position, const float* k, const float* v) {
    const KvHead cache = kv_head(layer, head);
    store_row(cache, true, position, k);
    store_row(cache, false, position, v);
}

void Session::store_row(const KvHead& cache, bool is_key, int position, const float* x) {
    const int head_dim = model_->config.head_dim;
    const size_t moved = static_cast<size_t>(position / kKvChunk) * chunk_bytes();
    const auto at = static_cast<size_t>(position % kKvChunk);
    const void* to = static_cast<const unsigned char*>(is_key ? cache.k : cache.v) + moved;
    if (kv_ == DType::f32) {
        scatter(to, is_key, at, x, head_dim);
    } else if (kv_ == DType::f16) {
        uint16_t row[kMaxHeadDim];
        model_->kernels->f32_to_f16(row, x, head_dim);
        scatter(to, is_key, at, row, head_dim);
    } else {
        int8_t row[kMaxHeadDim];  // a multiple of 64: quantize writes the padding too
        auto* scale = const_cast<float*>(is_key ? cache.k_scale : cache.v_scale) + moved / sizeof(float) + at;
        *scale = model_->kernels->quantize(row, x, nullptr, head_dim);
        scatter(to, is_key, at, row, head_dim);
    }
}

}  // namespace onebit
