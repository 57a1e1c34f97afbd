#include "run/session.h"

#include <algorithm>
#include <cstring>

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

Session::Session(std::shared_ptr<Model> model, int capacity, DType kv)
    : model_(std::move(model)), capacity_(capacity), kv_(kv), layers_(static_cast<size_t>(model_->config.n_layers)) {
    const size_t layer_bytes = static_cast<size_t>(model_->config.n_kv_heads) * head_bytes();
    for (size_t i = 0; i < layers_.size(); ++i) layers_[i].at = i * layer_bytes;
}

Status Session::create(std::shared_ptr<Model> model, int capacity, DType kv, std::unique_ptr<Session>* out) {
    const int most = model->config.context_length;
    if (capacity < 1 || capacity > most) {
        return error("ERR_BAD_OPTION", "context: " + std::to_string(capacity) + " is not within 1 to " + std::to_string(most) +
                                           ", the model's own length.");
    }
    std::unique_ptr<Session> session(new Session(std::move(model), capacity, kv));
    // layers <= 2^10, capacity <= 2^22, kv_dim <= 2^16, element 4 and K and V 2: below 2^52.
    const uint64_t bytes = session->capacity_bytes();
    if (bytes > SIZE_MAX || !session->memory_.reserve(static_cast<size_t>(bytes))) {
        return error("ERR_OUT_OF_MEMORY", "There are no addresses for a KV cache of " + std::to_string(capacity) + " positions (" +
                                              std::to_string(bytes >> 20) + " MiB); ask for a smaller context.");
    }
    *out = std::move(session);
    return {};
}

Status Session::grow(int positions) {
    const uint64_t wanted = chunks_of(positions);
    if (wanted <= usable_chunks_) return {};
    if (!memory_.grow(static_cast<size_t>(wanted * chunk_bytes()))) {
        return error("ERR_OUT_OF_MEMORY", "The system has no memory for more than " + std::to_string(usable_chunks_ * kKvChunk) +
                                              " of the " + std::to_string(positions) + " positions in this session's KV cache (" +
                                              std::to_string(chunk_bytes() >> 20) + " MiB for " + std::to_string(kKvChunk) +
                                              "); a smaller context keeps within what there is.");
    }
    usable_chunks_ = wanted;
    return {};
}

size_t Session::rows_bytes() const {
    return static_cast<size_t>(kKvChunk) * static_cast<size_t>(model_->config.head_dim) * element_bytes(kv_);
}

// One KV head of one layer, in one chunk: k, v and their scales.
size_t Session::head_bytes() const {
    const size_t scales = kv_ == DType::q8 ? kKvChunk * sizeof(float) : 0;
    return 2 * (rows_bytes() + scales);
}

size_t Session::chunk_bytes() const {
    return layers_.size() * static_cast<size_t>(model_->config.n_kv_heads) * head_bytes();
}

bool Session::can_rewind() const {
    return std::all_of(layers_.begin(), layers_.end(), [](const LayerState& state) { return state.rewinds; });
}

void Session::rewind(int length) {
    if (length >= 0 && length < length_) length_ = length;
}

Status Session::copy_from(const Session& other, int length) {
    if (Status status = grow(length); !status.ok()) return status;
    if (length > 0) std::memcpy(memory_.base(), other.memory_.base(), static_cast<size_t>(chunks_of(length) * chunk_bytes()));
    length_ = length;
    return {};
}

KvHead Session::kv_head(int layer, int head) const {
    const unsigned char* k = memory_.base() + layers_[static_cast<size_t>(layer)].at + static_cast<size_t>(head) * head_bytes();
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
